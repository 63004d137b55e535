"""Masks as COCO writes them, checked and drawn: polygons, or runs of pixels down the columns."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_backbones.data import ImageSourceError
from ssl_backbones.evaluate.detection.packed_masks import unpacked
from ssl_backbones.evaluate.detection.values import told
from ssl_backbones.evaluate.frames import Size

SMALLEST = 6
"""Numbers of a polygon: a triangle's."""
Shape = list[list[float]] | dict[str, Any]
"""Polygons (x, y, x, y, ...), or `size` (height, width) and `counts` of pixels out of and in the mask in turn."""


@dataclass(frozen=True)
class Shapes:
    """The masks of a COCO file."""

    shapes: list[list[Shape | None]]
    """For each image, the shape of each annotation."""
    sizes: list[Size]

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 over the shapes."""
        digest = hashlib.sha256()
        for shapes in self.shapes:
            digest.update(repr(shapes).encode())
        return digest.hexdigest()

    def __call__(self, index: int, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The masks (N, H, W) of some annotations of an image."""
        from pycocotools import mask as runs

        width, height = map(int, self.sizes[index])
        found = []
        for number in numbers:
            shape: Any = self.shapes[index][number]
            if isinstance(shape, list):
                shape = runs.merge(runs.frPyObjects(shape, height, width))
            elif isinstance(shape["counts"], list):
                shape = runs.frPyObjects(shape, height, width)
            found.append(shape)
        return unpacked(found) if found else np.zeros((0, height, width), np.uint8)


def shape_of(value: Any, size: Size, where: str) -> Shape | None:
    """A segmentation that can be drawn, [] if it holds no area, None where there is none.

    Polygons of fewer than three points are left out. ImageSourceError for what is neither polygons inside or near an
    image of this size, nor runs that fill it.
    """
    if value is None or value == []:
        return None
    if isinstance(value, dict):
        return runs_of(value, size, where)
    if not isinstance(value, list) or not all(isinstance(polygon, list) for polygon in value):
        raise ImageSourceError(f"{where} has {told(value)} as its segmentation: give a list of polygons, or runs")
    for polygon in value:
        check_polygon(polygon, size, where)
    return [polygon for polygon in value if len(polygon) >= SMALLEST]


def check_polygon(polygon: list[Any], size: Size, where: str) -> None:
    """ImageSourceError for what is no even count of numbers, or has a point more than an image's size outside of it."""
    if len(polygon) % 2 or not {*map(type, polygon)} <= {int, float}:
        raise ImageSourceError(
            f"{where} has {told(polygon)} as a polygon, which is no even count of numbers: give x and y of each point"
        )
    for first, side in enumerate(size):
        far = [value for value in polygon[first::2] if not -side <= value <= 2 * side]  # NaN is neither
        if far:
            raise ImageSourceError(
                f"{where} has a polygon with a point at {far[0]!r}, far outside of its {size[0]:g} x {size[1]:g} "
                "pixels: correct it, or take it out"
            )


def runs_of(value: dict[str, Any], size: Size, where: str) -> Shape:
    """Runs of pixels that fill an image of this size to its last pixel; ImageSourceError for any other."""
    stated, counts = value.get("size"), value.get("counts")
    if stated != [size[1], size[0]]:
        drawn = " x ".join(map(str, reversed(stated))) if isinstance(stated, list) else told(stated)
        raise ImageSourceError(
            f"{where} has a mask of {drawn} pixels on an image of {size[0]:g} x {size[1]:g}: draw it at that size"
        )
    lengths = unpacked_counts(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not {*map(type, lengths)} <= {int}:
        lengths = [-1]
    if min(lengths, default=0) < 0 or sum(lengths) != size[0] * size[1]:
        raise ImageSourceError(
            f"{where} has {told(counts)} as the counts of its mask, which do not add up to its {size[0]:g} x "
            f"{size[1]:g} pixels: write the mask anew"
        )
    return {"size": [int(size[1]), int(size[0])], "counts": counts}


def unpacked_counts(packed: str) -> list[int] | None:
    """Counts out of pycocotools' string: five bits a letter, each from the third on less the one before the last.

    None for a string that is none; pycocotools itself reads on behind its end.
    """
    counts: list[int] = []
    value = shift = 0
    for letter in packed:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return None if shift else counts
