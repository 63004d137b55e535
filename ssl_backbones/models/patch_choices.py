"""The configuration that Patch RotNet and Patch RelNet share.

Pham et al., Self-supervised Learning with Local Attention-Aware Feature, 2021. https://arxiv.org/abs/2108.00475
"""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass

from ssl_backbones.checks import check_positive, check_share
from ssl_backbones.models.classifier import Classifier
from ssl_backbones.typed.values import check_choices
from ssl_backbones.views import Positions, check_ratio

PATCH = (
    "Self-supervised Learning with Local Attention-Aware Feature",
    "Pham et al.",
    2021,
    "https://arxiv.org/abs/2108.00475",
)
"""Title, authors, year and address of the paper."""


@dataclass(frozen=True)
class PatchChoices(ABC):  # noqa: B024  # fields alone
    """The choices of the eight views, and of the classifier."""

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
    crop_padding: float = 1 / 8
    """Black around an image before a crop of its own size, as a share of the side; 0 for no crop."""
    flip_p: float = 0.5
    """Probability of a horizontal flip."""

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        check_choices(self)
        check_positive(hidden_dim=self.hidden_dim)
        check_share("crop_padding", self.crop_padding)
        check_share("flip_p", self.flip_p)
