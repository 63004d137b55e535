"""Transforms whose views are made where the network is, out of one small augmented image per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_backbones.views.crop_flip import CropFlip, Placement
from ssl_backbones.views.patches import patch_side, patch_views, rotations
from ssl_backbones.views.randomness import uniform
from ssl_backbones.views.transform import Transform

Positions = Literal["per image", "per view"]
"""Place the four patches of an image at one place, or at four."""


@dataclass(frozen=True)
class Rotations(Transform):
    """Every augmented image turned by 0, 90, 180 and 270 degrees: `views.patches.rotations`."""

    base: CropFlip
    """The augmentations before the turns."""

    def at(self, side: int) -> Self:
        """The same views at another side."""
        return replace(self, base=self.base.at(side))

    def draw(self, seed: int, epoch: int, indices: np.ndarray) -> Placement:
        """Each image's augmentation; the turns are no chance."""
        return self.base.draw(seed, epoch, indices)

    def on_host(self, images: Sequence[Image.Image], parameters: Placement) -> Tensor:
        """Levels (B, S, S, 3), uint8, upright."""
        return self.base.on_host(images, parameters)

    def on_device(self, batch: Tensor) -> Tensor:
        """The four views of all images, (4B, 3, S, S)."""
        return rotations(self.base.on_device(batch))


@dataclass(frozen=True)
class PatchViews(Transform):
    """Every augmented image turned, and with small turned copies of itself in it: `views.patches.patch_views`."""

    base: CropFlip
    """The augmentations before the turns."""
    ratio: float = 0.4
    """The side of a copy, as a share of the image's."""
    positions: Positions = "per image"
    """One place for the four patches of an image, or four."""
    antialias: bool = False
    """Average a patch from all the pixels it stands for, instead of interpolating between four of them."""

    def __post_init__(self) -> None:
        patch_side(self.base.size, self.ratio)  # refuses a wrong ratio

    def at(self, side: int) -> Self:
        """The same views at another side."""
        return replace(self, base=self.base.at(side))

    def draw(self, seed: int, epoch: int, indices: np.ndarray) -> tuple[Placement, np.ndarray]:
        """Each image's augmentation, and the corners (B, 2) or (B, 4, 2) of its patches."""
        places = self.base.size - patch_side(self.base.size, self.ratio) + 1
        count = 4 if self.positions == "per view" else 1
        corners = (uniform(seed, epoch, indices, 1, 2 * count) * places).astype(np.int64)
        shape = (-1, 2) if count == 1 else (-1, count, 2)
        return self.base.draw(seed, epoch, indices), corners.reshape(shape)

    def on_host(self, images: Sequence[Image.Image], parameters: tuple[Placement, np.ndarray]) -> Any:
        """Levels (B, S, S, 3), uint8, and the corners."""
        placement, corners = parameters
        return {"levels": self.base.on_host(images, placement), "corners": torch.from_numpy(corners)}

    def on_device(self, batch: Any) -> Tensor:
        """The eight views of all images, (8B, 3, S, S)."""
        return patch_views(self.base.on_device(batch["levels"]), self.ratio, batch["corners"], self.antialias)
