"""The configuration that methods on small images share."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass

from torch import nn

from ssl_backbones.checks import check_share
from ssl_backbones.models.backbone import normalisation
from ssl_backbones.views import CropFlip


@dataclass(frozen=True)
class CropFlipChoices(ABC):  # noqa: B024  # fields alone
    """The choices of one augmented image: shifted and mirrored."""

    crop_padding: float = 1 / 8
    """Black around an image before a crop of its own size, as a share of the side; 0 for no crop."""
    flip_p: float = 0.5
    """Probability of a horizontal flip."""

    def __post_init__(self) -> None:
        check_share("crop_padding", self.crop_padding)
        check_share("flip_p", self.flip_p)

    def crop_flip(self, size: int, backbone: nn.Module) -> CropFlip:
        """The augmentation at `size` x `size` pixels, normalised as the backbone asks."""
        return CropFlip(size, self.crop_padding, self.flip_p, **normalisation(backbone))
