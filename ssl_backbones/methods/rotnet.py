"""RotNet: by how many quarters has the image been turned? Gidaris et al., 2018. https://arxiv.org/abs/1803.07728

As the baseline of Patch RotNet has it: all four views of an image in one batch, after a crop and a flip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssl_backbones.checks import check_positive
from ssl_backbones.losses import accuracy, cross_entropy
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import feature_map, pooled, width_of
from ssl_backbones.models.classifier import Classifier, classifier
from ssl_backbones.models.crop_flip_choices import CropFlipChoices
from ssl_backbones.registry.papers import Paper
from ssl_backbones.typed.values import check_choices
from ssl_backbones.views import Rotations

TURNS = 4


@dataclass(frozen=True)
class RotNetConfig(CropFlipChoices, MethodConfig):
    """RotNet's choices."""

    name: ClassVar[str] = "rotnet"
    paper: ClassVar[Paper] = Paper(
        "RotNet",
        "Unsupervised Representation Learning by Predicting Image Rotations",
        "Gidaris et al.",
        2018,
        "https://arxiv.org/abs/1803.07728",
    )
    head: Classifier = "linear"
    """One linear layer, or a hidden one before it with BatchNorm and a leaky ReLU."""
    hidden_dim: int = 256
    """The width inside the head, where it is an "mlp"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
        check_positive(hidden_dim=self.hidden_dim)

    def build(self, backbone: nn.Module) -> RotNet:
        return RotNet(backbone, self)


class RotNet(Method):
    """Each view of an image is told by how it was turned."""

    def __init__(self, backbone: nn.Module, config: RotNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RotNetConfig()
        self.backbone = backbone
        self.head = classifier(config.head, width_of(backbone), config.hidden_dim, TURNS)

    def transform(self, size: int) -> Rotations:
        return Rotations(self.config.crop_flip(size, self.backbone))

    def forward(self, batch: Tensor) -> dict[str, Tensor | float]:
        """Score the views (4B, 3, S, S) that `views.patches.rotations` lays out."""
        logits = self.logits(batch)
        labels = torch.arange(TURNS, device=batch.device).repeat_interleave(len(batch) // TURNS)
        loss = cross_entropy(logits, labels)
        return {"loss": loss, "accuracy": accuracy(logits, labels), "chance": math.log(TURNS)}

    def logits(self, images: Tensor) -> Tensor:
        """The logits (B, 4) of images (B, 3, S, S): one for each rotation."""
        logits: Tensor = self.head(pooled(feature_map(self.backbone, images)))
        return logits
