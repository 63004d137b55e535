"""Views of an image and its mask: one geometry for both, the image smoothed and the mask never mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssl_backbones.data import BatchDataset, Request
from ssl_backbones.evaluate.segmentation.mask_values import IGNORED
from ssl_backbones.evaluate.segmentation.masks import Scenes
from ssl_backbones.views import Transform, normalise, uniform
from ssl_backbones.views.normalise import IMAGENET_MEAN, IMAGENET_STD
from ssl_backbones.views.pillow_engine import pixels

TRIES = 10
"""Crops proposed before one is taken although a single class fills too much of it."""
BILINEAR, NEAREST = Image.Resampling.BILINEAR, Image.Resampling.NEAREST


class Scene(NamedTuple):
    """An image, and the class of each of its pixels (H, W)."""

    image: Image.Image
    mask: np.ndarray


@dataclass(frozen=True)
class Placement:
    """Scales, proposed places of crops, and flips of B scenes."""

    scale: NDArray[np.float64]
    """(B,)"""
    position: NDArray[np.float64]
    """(B, 10, 2) proposals, down and across, in [0, 1)."""
    flip: NDArray[np.bool_]
    """(B,)"""


@dataclass(frozen=True)
class ScaleCropFlip(Transform):
    """A crop of `size` out of the scene scaled by chance, mirrored half of the time.

    Beyond a scene that has become smaller, the image shows the mean colour and the mask says ignored.
    """

    size: int
    short_side: int = 0
    """Shorter side of an image at scale 1, in pixels; 0 keeps its own."""
    scale: tuple[float, float] = (0.5, 2.0)
    max_share: float = 1.0
    """Another crop is proposed where one class has more than this share of the known pixels."""
    flip_p: float = 0.5
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def draw(self, seed: int, epoch: int, indices: np.ndarray) -> Placement:
        """The choices for each scene."""
        chances = uniform(seed, epoch, indices, 0, 2 + 2 * TRIES)
        low, high = self.scale
        position = chances[:, 2:].reshape(-1, TRIES, 2)
        return Placement(low + (high - low) * chances[:, 0], position, chances[:, 1] < self.flip_p)

    def on_host(self, images: Sequence[Scene], parameters: Placement) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Levels (B, S, S, 3) and classes (B, S, S), both uint8."""
        fill = np.rint(255 * np.array(self.mean)).astype(np.uint8)
        levels = np.broadcast_to(fill, (len(images), self.size, self.size, 3)).copy()
        masks = np.full((len(images), self.size, self.size), IGNORED, np.uint8)
        drawn = zip(parameters.scale.tolist(), parameters.position, parameters.flip.tolist(), strict=True)
        for level, mask, scene, (scale, position, flip) in zip(levels, masks, images, drawn, strict=True):
            scaled = scaled_size(scene.image.size, scale, self.short_side)
            box, cut = self.crop(Image.fromarray(scene.mask), scaled, position)
            image = pixels(scene.image.resize(cut.shape[::-1], BILINEAR, box))
            level[: cut.shape[0], : cut.shape[1]], mask[: cut.shape[0], : cut.shape[1]] = image, cut
            if flip:
                level[:], mask[:] = level[:, ::-1].copy(), mask[:, ::-1].copy()
        return torch.from_numpy(levels), torch.from_numpy(masks)

    def crop(
        self, mask: Image.Image, scaled: tuple[int, int], position: NDArray[np.float64]
    ) -> tuple[tuple[float, float, float, float], np.ndarray]:
        """The first proposal that no class fills, or the last: its box in the unscaled mask, and what it shows."""
        width, height = (min(self.size, side) for side in scaled)
        tries = position if self.max_share < 1 else position[:1]
        for down, across in tries:
            left, top = int(across * (scaled[0] - width + 1)), int(down * (scaled[1] - height + 1))
            across_by, down_by = mask.width / scaled[0], mask.height / scaled[1]
            right, bottom = min(mask.width, (left + width) * across_by), min(mask.height, (top + height) * down_by)
            box = (left * across_by, top * down_by, right, bottom)
            cut = np.asarray(mask.resize((width, height), NEAREST, box))
            if self.max_share >= 1 or largest_share(cut) < self.max_share:
                break
        return box, cut

    def on_device(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, S, S), channels-last, and classes (B, S, S), int64."""
        levels, masks = batch
        return normalise(levels.permute(0, 3, 1, 2), self.mean, self.std), masks.long()


@dataclass(frozen=True)
class WholeScene(Transform):
    """One scene at scale 1, whole, with its mask as it is."""

    short_side: int = 0
    """Shorter side of the image, in pixels; 0 keeps its own."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def draw(self, seed: int, epoch: int, indices: np.ndarray) -> None:
        """Nothing: there is no chance in it."""

    def on_host(self, images: Sequence[Scene], parameters: None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Levels (1, h, w, 3) and classes (1, H, W), both uint8."""
        (scene,) = images
        size = scaled_size(scene.image.size, 1.0, self.short_side)
        image = scene.image if size == scene.image.size else scene.image.resize(size, BILINEAR)
        return torch.from_numpy(pixels(image).copy())[None], torch.from_numpy(scene.mask)[None]

    def on_device(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The normalised image (1, 3, h, w), channels-last, and classes (1, H, W), int64."""
        levels, masks = batch
        return normalise(levels.permute(0, 3, 1, 2), self.mean, self.std), masks.long()


@final
class SceneBatches(BatchDataset):
    """Batches of images with their masks; where an image cannot be read, another scene takes its place."""

    images: Scenes

    def content(self, request: Request, unreadable: dict[str, str]) -> Any:
        """The scenes of the request, as the transform makes them on the host."""
        rows, images = self.read_all(request, unreadable)
        scenes = [Scene(image, self.images.mask(row)) for row, image in zip(rows.tolist(), images, strict=True)]
        return self.transformed(request, scenes)  # type: ignore[arg-type]


def scaled_size(size: tuple[int, int], scale: float, short_side: int) -> tuple[int, int]:
    """Width and height once the short side is `short_side`, or its own where that is 0, times the scale."""
    factor = scale * (short_side / min(size) if short_side else 1.0)
    width, height = (max(1, round(side * factor)) for side in size)
    return width, height


def largest_share(mask: np.ndarray) -> float:
    """The share of the most frequent class among the known pixels; 1 where there is one class, or none."""
    counts = np.bincount(mask.ravel(), minlength=256)[:IGNORED]
    return 1.0 if np.count_nonzero(counts) < 2 else float(counts.max() / counts.sum())
