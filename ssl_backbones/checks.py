"""Checks of configurations: ValueError in one sentence each; and what sentences to a person are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any


def check_share(name: str, value: float) -> None:
    """Refuse a momentum or a weight outside [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a share and must be in [0, 1], not {value}")


def check_momentum(name: str, value: float) -> None:
    """Refuse a momentum outside [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} is a momentum and must be in [0, 1), as nothing moves at 1, not {value}")


def check_alike(name: str, views: Sequence[Any]) -> None:
    """Refuse views of different sizes, for a method that pairs their positions or puts them into one batch."""
    if len(shares := sorted({view.size_share for view in views})) > 1:
        told = " and ".join(map(str, shares))
        raise ValueError(f"{name} have a size_share of {told}, but this method takes one for all")


def check_positive(**values: float) -> None:
    """Refuse sizes, counts and temperatures that are not above zero, or without bound."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive{' and finite' if value > 0 else ''}, not {value}")


def check(holds: bool, name: str, value: object, expected: str) -> None:
    """Refuse a value in a sentence."""
    if not holds:
        raise ValueError(f"{brief(name)} is {brief(repr(value))}, but must be {expected}.")


def brief(text: str, most: int = 200) -> str:
    """A text for a sentence, cut where it is longer than any person's."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} letters)"


def few(names: Sequence[Any], shown: int = 3, apart: str = ", ", spelled: Callable[[Any], str] = str) -> str:
    """The first names as they are spelled, and how many more there are."""
    return apart.join(map(spelled, names[:shown])) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def check_seed(name: str, seed: int) -> None:
    """Refuse a seed that no generator takes."""
    check(0 <= seed < 2**63, name, seed, "at least 0 and below 2^63")


def check_at_least(part: object, prefix: str = "", **least: float) -> None:
    """Refuse a field of a part that is below its least value; None is left alone."""
    for name, smallest in least.items():
        value = getattr(part, name)
        check(value is None or value >= smallest, prefix + name, value, f"at least {smallest}")
