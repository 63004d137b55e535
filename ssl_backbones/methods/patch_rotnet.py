"""Patch RotNet: has the image been turned, or a small copy of it inside, and by how many quarters?

Pham et al., Self-supervised Learning with Local Attention-Aware Feature, 2021. https://arxiv.org/abs/2108.00475
No code of it is public; what the paper leaves open is a choice here, its default the plainest reading.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssl_backbones.losses import accuracy, cross_entropy
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import feature_map, pooled, width_of
from ssl_backbones.models.classifier import classifier
from ssl_backbones.models.patch_choices import PATCH, PatchChoices
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import PatchViews

VIEWS = 8


@dataclass(frozen=True)
class PatchRotNetConfig(PatchChoices, MethodConfig):
    """Patch RotNet's choices."""

    name: ClassVar[str] = "patch_rotnet"
    paper: ClassVar[Paper] = Paper("Patch RotNet", *PATCH)

    def build(self, backbone: nn.Module) -> PatchRotNet:
        return PatchRotNet(backbone, self)


class PatchRotNet(Method):
    """Each of the eight views of an image is told from the others: four turned, four with a turned patch."""

    def __init__(self, backbone: nn.Module, config: PatchRotNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PatchRotNetConfig()
        self.backbone = backbone
        self.head = classifier(config.head, width_of(backbone), config.hidden_dim, VIEWS)

    def transform(self, size: int) -> PatchViews:
        return self.config.patch_views(size, self.backbone)

    def forward(self, batch: Tensor) -> dict[str, Tensor | float]:
        """Score the views (8B, 3, S, S) that `views.patches.patch_views` lays out; all pass the network at once."""
        logits = self.logits(batch)
        labels = torch.arange(VIEWS, device=batch.device).repeat_interleave(len(batch) // VIEWS)
        loss = cross_entropy(logits, labels)  # eq. 1, its sum over the eight views and no ninth
        return {"loss": loss, "accuracy": accuracy(logits, labels), "chance": math.log(VIEWS)}

    def logits(self, images: Tensor) -> Tensor:
        """The logits (B, 8) of images (B, 3, S, S): one for each of the eight views."""
        logits: Tensor = self.head(pooled(feature_map(self.backbone, images)))
        return logits
