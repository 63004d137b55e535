"""Views that grow with the epochs, as part of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ssl_backbones.checks import check, check_at_least
from ssl_backbones.typed.values import check_types


@dataclass(frozen=True)
class Progressive:
    """Views that grow with the epochs, from a smaller side in equal parts of the time to the whole one."""

    start: int = 0
    """Side of the views of the first epochs, in pixels; 0 for full-size views throughout."""
    step: Literal[16, 32] = 32
    """Pixels by which views grow at a time; take few steps, as each size is tuned and compiled for."""
    whole_from: float = 0.75
    """Share of the epochs after which views have full size; those of the last epoch always have, as batch statistics
    are published as of its end."""

    def __post_init__(self) -> None:
        check_types(self, "progressive.")
        check_at_least(self, "progressive.", start=0)
        check(0 < self.whole_from <= 1, "progressive.whole_from", self.whole_from, "above 0 and at most 1")

    def check(self, size: int) -> None:
        """ValueError for views that would not grow to `size` pixels."""
        expected = f"below the size of the run, {size}, or 0 for views of that size in all epochs"
        check(not self.start or self.start < size, "progressive.start", self.start, expected)

    def sides(self, size: int, epochs: int) -> tuple[int, ...]:
        """The side of the views of each epoch, in a run of views of `size` pixels."""
        smaller = range(self.start, size, self.step) if self.start else range(0)
        growing = min(round(self.whole_from * epochs), epochs - 1) if smaller else 0
        return tuple(smaller[epoch * len(smaller) // growing] if epoch < growing else size for epoch in range(epochs))
