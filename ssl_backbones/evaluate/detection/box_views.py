"""Images and their objects as a detector is shown them: resized by the short side, mirrored by chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ssl_backbones.data import BatchDataset, Request
from ssl_backbones.evaluate.detection.annotations import AnnotatedImages
from ssl_backbones.views.normalise import IMAGENET_MEAN, IMAGENET_STD, normalise
from ssl_backbones.views.pillow_engine import pixels
from ssl_backbones.views.randomness import uniform
from ssl_backbones.views.transform import Transform

STEP = 32
"""Pixels between two short sides, and what a batch's sides are a multiple of."""

Target = dict[str, Tensor]
"""Boxes (N, 4), labels (N,) from 1, and masks (N, H, W) where they are wanted."""


@dataclass(frozen=True)
class Scaling:
    """Short sides and flips of B images."""

    short: NDArray[np.int64]
    """(B,) the short side, in pixels."""
    flip: NDArray[np.bool_]
    """(B,)"""


@dataclass(frozen=True)
class ResizeFlip(Transform):
    """The short side at one of smallest, smallest + 32, ..., size, the long side at `longest` at most; then a flip.

    Where smallest is size and flip_p 0, the transform of a test. Sizes are rounded as detectron2's ResizeShortestEdge
    rounds them.
    """

    size: int
    smallest: int
    longest: int
    flip_p: float = 0.5
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.size <= self.longest:
            raise ValueError(
                f"the short side goes from {self.smallest} to {self.size} and the long one up to {self.longest} "
                "pixels, but must rise in this order"
            )

    @property
    def sides(self) -> NDArray[np.int64]:
        """The short sides to choose among, the largest always one of them."""
        return np.array([*range(self.smallest, self.size, STEP), self.size])

    def draw(self, seed: int, epoch: int, indices: np.ndarray) -> Scaling:
        """Each image's short side and flip."""
        chances = uniform(seed, epoch, indices, 0, 2)
        return Scaling(self.sides[(chances[:, 0] * len(self.sides)).astype(np.int64)], chances[:, 1] < self.flip_p)

    def on_host(self, images: Sequence[Image.Image], parameters: Scaling) -> list[Tensor]:
        """Levels of each image, (3, H, W) uint8."""
        return [
            self.resized(image, int(short), bool(flip))
            for image, short, flip in zip(images, parameters.short, parameters.flip, strict=True)
        ]

    def resized(self, image: Image.Image, short: int, flip: bool) -> Tensor:
        """One image, (3, H, W) uint8."""
        image = image.resize(self.shape(image.size, short), Image.Resampling.BILINEAR)
        if flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(pixels(image).transpose(2, 0, 1).copy())

    def shape(self, size: tuple[int, int], short: int) -> tuple[int, int]:
        """Width and height of an image once it is resized."""
        scale = min(short / min(size), self.longest / max(size))
        width, height = (max(1, int(side * scale + 0.5)) for side in size)
        return width, height

    def on_device(self, batch: list[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        """Normalised images (B, 3, H, W), zero beyond each image's own height and width, and those two."""
        sizes = [(int(levels.shape[1]), int(levels.shape[2])) for levels in batch]
        height, width = (-(-max(size[side] for size in sizes) // STEP) * STEP for side in (0, 1))
        images = batch[0].new_zeros((len(batch), 3, height, width), dtype=torch.float32)
        images = images.contiguous(memory_format=torch.channels_last)
        for image, levels in zip(images, batch, strict=True):
            image[:, : levels.shape[1], : levels.shape[2]] = normalise(levels[None], self.mean, self.std)[0]
        return images, sizes


@final
class BoxBatches(BatchDataset):
    """Batches of images and their objects. What stands for many is no target; where `masks`, neither is the unseen."""

    transform: ResizeFlip

    def __init__(self, images: AnnotatedImages, transform: ResizeFlip, seed: int, masks: bool) -> None:
        super().__init__(images, transform, seed)
        self.annotated, self.with_masks = images, masks

    def content(self, request: Request, unreadable: dict[str, str]) -> tuple[list[Tensor], list[Target]]:
        """Levels (3, H, W), uint8, of each image at its size, and the objects in it."""
        rows, images = self.read_all(request, unreadable)
        scaling = self.transform.draw(self.seed, request.epoch, request.indices)
        levels = self.transform.on_host(images, scaling)
        targets = [
            self.target(row, image.size, (shown.shape[2], shown.shape[1]), bool(flip))
            for row, image, shown, flip in zip(rows.tolist(), images, levels, scaling.flip, strict=True)
        ]
        return levels, targets

    def target(self, row: int, size: tuple[int, int], shown: tuple[int, int], flip: bool) -> Target:
        """The objects of an image of one width and height, as they lie in it at another."""
        objects, masks = self.annotated.drawn(row) if self.with_masks else (self.annotated.objects[row], None)
        boxes = np.clip(objects.boxes, 0, [*size, *size]).astype(np.float32)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & ~objects.crowd
        boxes = boxes[kept] * np.tile(np.array(shown) / np.array(size), 2).astype(np.float32)
        if flip:
            boxes = np.stack([shown[0] - boxes[:, 2], boxes[:, 1], shown[0] - boxes[:, 0], boxes[:, 3]], axis=1)
        target = {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(objects.labels[kept] + 1)}
        if masks is not None:
            target["masks"] = resized_masks(masks[kept], shown, flip)
        return target

    def on_device(self, content: Any) -> tuple[Any, list[Target]]:
        """Images with their sizes, and their objects, as the detector takes them."""
        levels, targets = content
        return self.transform.on_device(levels), targets


def resized_masks(masks: NDArray[np.uint8], shown: tuple[int, int], flip: bool) -> Tensor:
    """Masks (N, H, W) at another width and height, the nearest pixel taken."""
    if not len(masks):
        return torch.zeros((0, shown[1], shown[0]), dtype=torch.uint8)
    resized = F.interpolate(torch.from_numpy(masks)[None], size=(shown[1], shown[0]), mode="nearest-exact")[0]
    return resized.flip(2).contiguous() if flip else resized
