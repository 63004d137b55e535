"""Patch RelNet: by how many quarters have both the image and a small copy of it inside been turned?

Pham et al., Self-supervised Learning with Local Attention-Aware Feature, 2021. https://arxiv.org/abs/2108.00475
No code of it is public; what the paper leaves open is a choice here, its default the plainest reading. The turned image
alone gives the answer, so what is learnt from the patch is what helps beyond it.
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

TURNS = 4


@dataclass(frozen=True)
class PatchRelNetConfig(PatchChoices, MethodConfig):
    """Patch RelNet's choices."""

    name: ClassVar[str] = "patch_relnet"
    paper: ClassVar[Paper] = Paper("Patch RelNet", *PATCH)

    def build(self, backbone: nn.Module) -> PatchRelNet:
        return PatchRelNet(backbone, self)


class PatchRelNet(Method):
    """A turned image, side by side with the upright one that holds a patch turned alike, is told by the turn."""

    def __init__(self, backbone: nn.Module, config: PatchRelNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PatchRelNetConfig()
        self.backbone = backbone
        self.head = classifier(config.head, 2 * width_of(backbone), config.hidden_dim, TURNS)

    def transform(self, size: int) -> PatchViews:
        return self.config.patch_views(size, self.backbone)

    def forward(self, batch: Tensor) -> dict[str, Tensor | float]:
        """Score the views (8B, 3, S, S) that `views.patches.patch_views` lays out; all pass the network at once."""
        logits = self.head(pairs(pooled(feature_map(self.backbone, batch))))
        labels = torch.arange(TURNS, device=batch.device).repeat_interleave(len(logits) // TURNS)
        loss = cross_entropy(logits, labels)
        return {"loss": loss, "accuracy": accuracy(logits, labels), "chance": math.log(TURNS)}


def pairs(features: Tensor) -> Tensor:
    """Features (8B, C) of the eight views as pairs (4B, 2C): the turned image, and the patch in it, turned alike."""
    return torch.cat(features.chunk(2), dim=1)
