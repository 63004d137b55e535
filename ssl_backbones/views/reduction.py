"""Images decoded no finer than their views need, and the parts of them that views are made of.

JPEG can be decoded at a half, a quarter or an eighth of its sides at a fraction of the work. The drawn crops decide how
coarse an image may be, so that what is decoded is as much a function of (seed, epoch, index) as the crops are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
from PIL import Image

Reduction = Callable[[int, int], int]
"""The divisor, 1, 2, 4 or 8, of the sides of a large image of a width and a height; a function of nothing else."""
DIVISORS = (8, 4, 2)
LARGE = 1_000_000
"""Pixels of an image from which decoding less of it is worth other pixels: a smaller one takes a few milliseconds."""
GAP = 2.0
"""Pixels that a crop keeps for each of the view's, along its shorter side at least, as Pillow advises."""


def unreduced(width: int, height: int) -> int:
    """The divisor of an image that is wanted whole."""
    return 1


def divisor(crop: int, size: int) -> int:
    """The divisor of an image whose smallest crop has `crop` pixels along its shorter side, for a view of `size`."""
    return next((by for by in DIVISORS if crop >= GAP * size * by), 1)


_CHOSEN: ContextVar[Reduction] = ContextVar("reduction", default=unreduced)


@contextmanager
def using_reduction(reduction: Reduction) -> Iterator[None]:
    """Images that are decoded in this block may be as coarse as that."""
    token = _CHOSEN.set(reduction)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def chosen_reduction() -> Reduction:
    """The reduction of the innermost `using_reduction`; outside of any, none."""
    return _CHOSEN.get()


class ReducedImage(Image.Image):
    """An RGB image with fewer pixels than its file has; what is made of it is a plain image again."""

    def __init__(self, pixels: Image.Image, by: int, whole: tuple[int, int], before: tuple[int, int] = (0, 0)) -> None:
        """`pixels` has one for `by` x `by` of the image in its file, whose width and height are `whole`.

        `before` are columns and rows by which the first pixels reach out of it, to the left and to the top.
        """
        super().__init__()
        self._mode, self._size, self.im = pixels.mode, pixels.size, pixels.im
        self.by, self.whole, self.before = by, whole, before

    def part(self, box: Sequence[int], size: int, resampling: Image.Resampling) -> Image.Image:
        """The box (left, top, width, height) of the whole image at size x size, next to nothing from outside in it."""
        corner, extent = np.array(box[:2]), np.array(box[2:])
        first = (corner + self.before) / self.by
        last = first + extent / self.by
        outer = np.floor(first).astype(int), np.ceil(last).astype(int)
        part = self.crop((*outer[0].tolist(), *outer[1].tolist()))
        inner = (*(first - outer[0]).tolist(), *(last - outer[0]).tolist())
        return part.resize((size, size), resampling, inner)  # type: ignore[arg-type]


def whole_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an image as its file has it."""
    return image.whole if isinstance(image, ReducedImage) else image.size
