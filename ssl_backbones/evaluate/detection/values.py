"""The values of annotations, checked one by one as they are read: an odd one is refused by the name of its object."""

from __future__ import annotations

import math

from ssl_backbones.data import ImageSourceError
from ssl_backbones.evaluate.frames import Size


def number_of(value: object) -> float | None:
    """The value as a float, NaN and infinity included; None for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def size_of(width: object, height: object, where: str) -> Size:
    """The size that an annotation gives to an image, two whole numbers above 0; ImageSourceError for any other."""
    sides = number_of(width), number_of(height)
    if any(side is None or not 1 <= side < 2**31 or side != int(side) for side in sides):
        raise ImageSourceError(
            f"{where} has width {width!r} and height {height!r}: give the image's pixels, whole numbers above 0"
        )
    return sides[0] or 0.0, sides[1] or 0.0


def box_of(value: object, where: str) -> list[float]:
    """The four numbers of a box; ImageSourceError for anything else."""
    numbers = [number_of(each) for each in value] if isinstance(value, list) else []
    box = [each for each in numbers if each is not None]
    if len(box) != 4 or len(numbers) != 4:
        raise ImageSourceError(f"{where} has {told(value)} as its bbox: give four numbers, or take it out")
    return box


def flag_of(value: object, name: str, where: str) -> bool:
    """True for 1 or true, False for 0, false or null; ImageSourceError for anything else."""
    if value is not None and value not in (0, 1):
        raise ImageSourceError(f"{where} has {told(value)} as {name}: give 0 or 1, or leave it out")
    return bool(value)


def told(value: object) -> str:
    """A value in an error's sentence, shortened."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
