"""Photos with their objects: parquet files with boxes, and masks where there are any."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_backbones.data import Images, ImageSourceError, open_images
from ssl_backbones.data.splits import parquet_files

OBJECTS, INSTANCES = "objects", "instance_mask"
CROWD = 255
"""In a mask: more of the same than could be told apart."""


@dataclass(frozen=True)
class Annotated:
    """Photos as squares of S pixels, and which of their pixels are of an object."""

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


def open_annotated(spec: str, size: int) -> Annotated:
    """The middle squares of photos, and of their objects alike, scaled to `size`; ImageSourceError without boxes.

    A row's column `objects` lists {bbox: [left, top, right, bottom] in pixels, iscrowd}; `instance_mask` is an image
    of 0 for background and a number for each object. Crowds count as background.
    """
    files = parquet_files(spec)
    if not files:
        raise ImageSourceError(
            f"{spec!r} has no boxes: give parquet files with a column {OBJECTS!r}, as voc_mini's are"
        )
    images = open_images(spec)
    levels, boxes, masks = [], [], []
    for index, row in enumerate(rows(files)):
        photo = images[index]
        levels.append(np.asarray(middle(photo, size, Image.Resampling.BILINEAR)))
        boxes.append(np.asarray(middle(in_boxes(photo.size, row[OBJECTS]), size, Image.Resampling.NEAREST)) > 0)
        if INSTANCES in row:
            masks.append(on_objects(middle(mask_of(row[INSTANCES], photo.size, index), size, Image.Resampling.NEAREST)))
    return Annotated(
        images,
        torch.from_numpy(np.stack(levels)).permute(0, 3, 1, 2),
        torch.from_numpy(np.stack(boxes)),
        torch.from_numpy(np.stack(masks)) if masks else None,
    )


def rows(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The annotations of each photo, in the order of the photos."""
    from ssl_backbones.data.parquet import read, schema_of

    for file in files:
        names = schema_of(file).names
        if OBJECTS not in names:
            raise ImageSourceError(
                f"{str(file)!r} has no column {OBJECTS!r} (but {', '.join(names)}): give photos with boxes"
            )
        yield from read(file, [name for name in (OBJECTS, INSTANCES) if name in names]).to_pylist()


def middle(image: Image.Image, size: int, resampling: Image.Resampling) -> Image.Image:
    """The largest square about the centre, scaled to `size` pixels."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((size, size), resampling, box=(left, top, left + side, top + side))


def in_boxes(size: tuple[int, int], objects: Sequence[dict[str, Any]] | None) -> Image.Image:
    """An image that is 255 inside the boxes of what is no crowd."""
    inside = np.zeros(size[::-1], np.uint8)
    for one in objects or ():
        if not one.get("iscrowd"):
            left, top, right, bottom = (round(value) for value in one["bbox"])
            inside[max(top, 0) : bottom, max(left, 0) : right] = 255
    return Image.fromarray(inside)


def mask_of(content: dict[str, Any], size: tuple[int, int], index: int) -> Image.Image:
    """The mask of the photo in a row; ImageSourceError for one of another size."""
    with Image.open(io.BytesIO(content["bytes"]), formats=["PNG"]) as file:
        mask = file.convert("L") if file.mode != "L" else file.copy()
    if mask.size != size:
        raise ImageSourceError(
            f"the {INSTANCES} of row {index} has {mask.size[0]} x {mask.size[1]} pixels and its photo {size[0]} x "
            f"{size[1]}: give masks of the photos' own size"
        )
    return mask


def on_objects(mask: Image.Image) -> np.ndarray:
    """Which pixels of a mask are of an object."""
    values = np.asarray(mask)
    return (values > 0) & (values < CROWD)
