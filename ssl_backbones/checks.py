"""Checks of configurations: ValueError in one sentence each."""

from __future__ import annotations

import math
from typing import Any, get_args


def check_choice(name: str, value: str, choices: Any) -> None:
    """Refuse a value that is none of a Literal's."""
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, not {value!r}")


def check_share(name: str, value: float) -> None:
    """Refuse a momentum or a weight outside [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a share and must be in [0, 1], not {value}")


def check_positive(**values: float) -> None:
    """Refuse sizes, counts and temperatures that are not above zero, or without bound."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive{' and finite' if value > 0 else ''}, not {value}")


def check(holds: bool, name: str, value: object, expected: str) -> None:
    """Refuse a value in a sentence."""
    if not holds:
        raise ValueError(f"{name} is {value!r}, but must be {expected}.")


def check_at_least(part: object, **least: float) -> None:
    """Refuse a field of a part that is below its least value; None is left alone."""
    for name, smallest in least.items():
        value = getattr(part, name)
        check(value is None or value >= smallest, name, value, f"at least {smallest}")
