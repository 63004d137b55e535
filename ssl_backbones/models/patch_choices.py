"""The configuration that Patch RotNet and Patch RelNet share.

Pham et al., Self-supervised Learning with Local Attention-Aware Feature, 2021. https://arxiv.org/abs/2108.00475
"""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass

from torch import nn

from ssl_backbones.checks import check_positive
from ssl_backbones.models.classifier import Classifier
from ssl_backbones.models.crop_flip_choices import CropFlipChoices
from ssl_backbones.typed.values import check_choices
from ssl_backbones.views import PatchViews, Positions, check_ratio

PATCH = (
    "Self-supervised Learning with Local Attention-Aware Feature",
    "Pham et al.",
    2021,
    "https://arxiv.org/abs/2108.00475",
)
"""Title, authors, year and address of the paper."""


@dataclass(frozen=True)
class PatchChoices(CropFlipChoices, ABC):
    """The choices of the augmented image, of its eight views, and of the classifier."""

    ratio: float = 0.4
    """The patch's share of the image's side."""
    positions: Positions = "per image"
    """Place the four patches of an image at one place, or at four."""
    antialias: bool = False
    """Antialias the resize that makes a patch."""
    head: Classifier = "linear"
    """One linear layer, or a hidden one before it with BatchNorm and a leaky ReLU."""
    hidden_dim: int = 256
    """The width inside the head, where it is an "mlp"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ratio(self.ratio)
        check_choices(self)
        check_positive(hidden_dim=self.hidden_dim)

    def patch_views(self, size: int, backbone: nn.Module) -> PatchViews:
        """The eight views of an image at `size` x `size` pixels, normalised as the backbone asks."""
        return PatchViews(self.crop_flip(size, backbone), self.ratio, self.positions, self.antialias)
