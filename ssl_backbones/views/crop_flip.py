"""The augmentation of small images: shifted by a few pixels into black, and mirrored half of the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssl_backbones.views.center_crop import CenterCrop
from ssl_backbones.views.normalise import IMAGENET_MEAN, IMAGENET_STD, normalise
from ssl_backbones.views.randomness import uniform
from ssl_backbones.views.transform import Transform


@dataclass(frozen=True)
class Placement:
    """The corner of the crop of each of B padded images, and its mirror image or not."""

    corner: NDArray[np.int64]
    """(B, 2) row and column, from 0 to twice the padding."""
    flip: NDArray[np.bool_]
    """(B,)"""


@dataclass(frozen=True)
class CropFlip(Transform):
    """A crop of the image's own size out of the image padded with black, and a mirror image by chance.

    An image of another size is first brought to size x size as for evaluation: the short side resized, the middle kept.
    """

    size: int
    padding: float = 1 / 8
    """Padding on each side, as a share of the image's side; 0 for no crop."""
    flip_p: float = 0.5
    """Probability of a horizontal flip."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean of each channel, in [0, 1]; subtracted."""
    std: tuple[float, ...] = IMAGENET_STD
    """Standard deviation of each channel, in [0, 1]; divided by."""

    def __post_init__(self) -> None:
        """Raise ValueError for a padding or a probability outside [0, 1]."""
        CenterCrop(self.size, crop_pct=1.0)  # refuses a wrong size
        if not 0 <= self.padding <= 1:
            raise ValueError(f"padding is {self.padding}, but is a share of the side and has to be in [0, 1]")
        if not 0 <= self.flip_p <= 1:
            raise ValueError(f"flip_p is {self.flip_p}, but has to be a probability in [0, 1]")

    @property
    def margin(self) -> int:
        """The padding in pixels."""
        return int(self.size * self.padding)

    def at(self, side: int) -> Self:
        """The same crops and flips at another side."""
        return replace(self, size=side)

    def draw(self, seed: int, epoch: int, indices: np.ndarray) -> Placement:
        """Each image's crop and flip."""
        chances = uniform(seed, epoch, indices, 0, 3)
        return Placement((chances[:, :2] * (2 * self.margin + 1)).astype(np.int64), chances[:, 2] < self.flip_p)

    def on_host(self, images: Sequence[Image.Image], parameters: Placement) -> Tensor:
        """Levels (B, S, S, 3), uint8."""
        whole = CenterCrop(self.size, crop_pct=1.0).on_host(images, None).numpy()
        padded = np.pad(whole, ((0, 0), (self.margin,) * 2, (self.margin,) * 2, (0, 0)))
        for level, source, corner, flip in zip(whole, padded, parameters.corner, parameters.flip, strict=True):
            row, column = corner
            cropped = source[row : row + self.size, column : column + self.size]
            level[:] = cropped[:, ::-1] if flip else cropped
        return torch.from_numpy(whole)

    def on_device(self, batch: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S), channels-last."""
        return normalise(batch.permute(0, 3, 1, 2), self.mean, self.std)
