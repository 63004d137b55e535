"""The middle squares of annotated images, and which of their pixels are of an object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_backbones.data import Images
from ssl_backbones.evaluate.detection.annotations import AnnotatedImages

BILINEAR, NEAREST = Image.Resampling.BILINEAR, Image.Resampling.NEAREST


@dataclass(frozen=True)
class Squares:
    """Images as squares of S pixels, with their objects. Crowds count as background."""

    images: Images
    levels: Tensor
    """(N, 3, S, S), uint8"""
    boxes: Tensor
    """(N, S, S), bool: inside the box of an object."""
    masks: Tensor | None
    """(N, S, S), bool: on an object; None where the data have boxes alone."""

    @property
    def objects(self) -> Tensor:
        """The objects (N, S, S) as closely as they are known."""
        return self.boxes if self.masks is None else self.masks

    @property
    def measurable(self) -> Tensor:
        """True (N,) for images with an object in the square, by its box and as closely as it is known."""
        return self.boxes.any(2).any(1) & self.objects.any(2).any(1)


def squares_of(images: AnnotatedImages, size: int) -> Squares:
    """The largest square about the centre of each image and of its objects alike, scaled to `size` pixels."""
    levels, boxes, masks = [], [], []
    for index in range(len(images)):
        image = images[index]
        levels.append(np.asarray(middle(image, size, BILINEAR)))
        boxes.append(np.asarray(middle(in_boxes(images, index, image.size), size, NEAREST)) > 0)
        if images.masks is not None:
            masks.append(np.asarray(middle(in_masks(images, index), size, NEAREST)) > 0)
    return Squares(
        images.unannotated,
        torch.from_numpy(np.stack(levels)).permute(0, 3, 1, 2),
        torch.from_numpy(np.stack(boxes)),
        torch.from_numpy(np.stack(masks)) if masks else None,
    )


def middle(image: Image.Image, size: int, resampling: Image.Resampling) -> Image.Image:
    """The largest square about the centre, scaled to `size` pixels."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((size, size), resampling, box=(left, top, left + side, top + side))


def in_boxes(images: AnnotatedImages, index: int, size: tuple[int, int]) -> Image.Image:
    """An image of some width and height that is 255 inside the boxes of what is no crowd."""
    inside = np.zeros(size[::-1], np.uint8)
    objects = images.objects[index]
    for left, top, right, bottom in objects.boxes[~objects.crowd].round().astype(int):
        inside[top:bottom, left:right] = 255
    return Image.fromarray(inside)


def in_masks(images: AnnotatedImages, index: int) -> Image.Image:
    """An image that is 255 on what is no crowd."""
    masks = images.all_masks(index)[~images.objects[index].crowd]
    return Image.fromarray(255 * masks.any(axis=0).astype(np.uint8))
