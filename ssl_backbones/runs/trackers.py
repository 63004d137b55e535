"""Experiment trackers: somebody else's programs, on somebody else's networks, whose failures do not stop a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Tracker = Callable[[dict[str, float], int], Any]
"""Called with the values of a step and the step: `accelerator.log` and every tracker's `log` are."""


@contextmanager
def mentioned(tell: Callable[[str], None], number: int = 0, before: set[int] | None = None) -> Iterator[None]:
    """Context manager: tell what a tracker raises, once for each of those that failed `before`, and go on."""
    try:
        yield
    except Exception as error:
        if before is None or number not in before:
            tell(f"warning: a tracker failed, and training goes on ({type(error).__name__}: {error})")
        if before is not None:
            before.add(number)
