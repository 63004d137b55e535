"""The evaluation transform: the middle of each image, the same every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_backbones.views.channel_image import ChannelImage, have_channels, middles
from ssl_backbones.views.normalise import IMAGENET_MEAN, IMAGENET_STD, normalise
from ssl_backbones.views.pillow_engine import RESAMPLING, pixels
from ssl_backbones.views.transform import Transform

PREPARATION = ("mean", "std", "interpolation", "crop_pct")
"""Fields of timm's configuration that say how images are prepared, whatever their size."""
LONGEST = 100
"""The most times that an image's long side has its short one before it is cut to its middle."""


@dataclass(frozen=True)
class CenterCrop(Transform):
    """The short side at size / crop_pct, then the middle size x size: torchvision's Resize and CenterCrop."""

    size: int
    crop_pct: float = 0.875
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """The filter of the resize."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean of each channel, in [0, 1]; subtracted."""
    std: tuple[float, ...] = IMAGENET_STD
    """Standard deviation of each channel, in [0, 1]; divided by."""

    def __post_init__(self) -> None:
        """Raise ValueError for a size, share or interpolation that there is not."""
        if self.size < 1:
            raise ValueError(f"size is {self.size}, but an evaluation image needs at least 1 pixel")
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct is {self.crop_pct}, but the share of the image that is kept lies in (0, 1]")
        if self.interpolation not in RESAMPLING:
            raise ValueError(
                f"interpolation is {self.interpolation!r}, but it has to be one of {', '.join(RESAMPLING)}"
            )

    @property
    def preparation(self) -> dict[str, Any]:
        """The preparation of images, but for their size, under timm's names."""
        return {name: getattr(self, name) for name in PREPARATION}

    def draw(self, seed: int, epoch: int, indices: np.ndarray) -> None:
        """Nothing: there is no chance in it."""

    def on_host(self, images: Sequence[Image.Image], parameters: None) -> Tensor:
        """Levels (B, S, S, 3), uint8; of images with channels of their own (B, S, S, C), floats."""
        images = [shortened(image) for image in images]
        if have_channels(images):
            sizes = [self._size(image) for image in images]
            return torch.from_numpy(middles(images, sizes, self.size, RESAMPLING[self.interpolation]))
        levels = np.empty((len(images), self.size, self.size, 3), dtype=np.uint8)
        for row, image in zip(levels, images, strict=True):
            row[:] = pixels(self._middle(image))
        return torch.from_numpy(levels)

    def on_device(self, batch: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S), channels-last."""
        return normalise(batch.permute(0, 3, 1, 2), self.mean, self.std)

    def _middle(self, image: Image.Image) -> Image.Image:
        """The middle S x S of the resized image."""
        width, height = self._size(image)
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        resized = image.resize((width, height), RESAMPLING[self.interpolation])
        return resized.crop((left, top, left + self.size, top + self.size))

    def _size(self, image: Image.Image) -> tuple[int, int]:
        """Width and height of the resized image, whose short side is size / crop_pct."""
        short = round(self.size / self.crop_pct)
        width, height = (int(short * side / min(image.size)) for side in image.size)
        return width, height


def shortened(image: Image.Image) -> Image.Image:
    """The middle of an image that is longer than LONGEST times its short side; any other as it is.

    The middle square stays: the whole of a strip would be resized to many times the pixels that it has.
    """
    width, height = image.size
    most = LONGEST * min(width, height)
    if max(width, height) <= most:
        return image
    left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
    box = left, top, left + min(width, most), top + min(height, most)
    return image.cut(box) if isinstance(image, ChannelImage) else image.crop(box)
