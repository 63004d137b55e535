"""A run's numbers over its steps, as they are drawn on its page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 48, WIDTH - 12, 12, HEIGHT - 30
"""Edges of the axes in the drawing."""
MOST_POINTS = 240
"""A curve of more is drawn by means of neighbouring steps."""
DOTS = 24
"""A curve of at most so many has a dot at each."""

SHOWN = {
    "loss": ("Loss", False),
    "accuracy": ("Accuracy at the training task", True),
    "knn": ("k-NN accuracy", True),
    "retrieval": ("Images found by a view of them", True),
    "kept": ("Neighbours kept since the last time", True),
    "rank": ("Effective rank of the features", False),
    "std": ("Spread of the features", False),
    "gradient": ("Norm of the gradient", False),
    "lr": ("Learning rate", False),
}
"""The numbers of a log that are drawn, in this order: a title, and True for a share."""


@dataclass(frozen=True)
class Curve:
    """One number over the steps."""

    title: str
    """Above the curve."""
    steps: np.ndarray
    """(N,) rising."""
    values: np.ndarray
    """(N,); one that is not finite leaves a gap."""
    reference: tuple[str, float] | None = None
    """A level to compare with: its name and value."""
    percent: bool = False
    """True for values that are shown as percentages."""

    def told(self, value: float) -> str:
        """A value in few digits, as it stands in a sentence."""
        return f"{100 * value:.1f} %" if self.percent else f"{value:.3g}"

    def sentence(self) -> str:
        """A description of the curve, for those who do not see it."""
        known = np.isfinite(self.values)
        if not known.any():
            return f"{self.title}: no finite value in {len(self.values)}."
        steps, values = self.steps[known], self.values[known]
        ends = " to ".join(f"{self.told(values[at])} at step {steps[at]:,.0f}" for at in (0, -1))
        level = f"; {self.reference[0]} is {self.told(self.reference[1])}" if self.reference else ""
        return f"{self.title}: from {ends}, lowest {self.told(values.min())}, highest {self.told(values.max())}{level}."


@dataclass(frozen=True)
class Drawing:
    """A curve on axes, in the coordinates of an SVG."""

    ticks: list[tuple[float, str]]
    """Heights of the lines with round numbers, and these."""
    last: str
    """The last step."""
    level: float | None
    """The height of the reference."""
    path: str
    dots: list[tuple[float, float]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT


def run_curves(lines: Sequence[Mapping[str, Any]], *, knn_chance: float | None = None) -> list[Curve]:
    """The curves of a run's log: one for each number that is worth drawing, with chance as the level where known."""
    curves = []
    for name, (title, percent) in SHOWN.items():
        found = [(line["step"], line[name], line.get("chance")) for line in lines if is_number(line.get(name))]
        if not found:
            continue
        steps, values, levels = zip(*found, strict=True)
        chance: Any = knn_chance if name == "knn" else levels[-1] if name == "loss" else None
        reference = ("chance", float(chance)) if is_number(chance) else None
        curves.append(Curve(title, np.asarray(steps, float), np.asarray(values, float), reference, percent))
    return curves


def is_number(value: Any) -> bool:
    """True for a number, finite or not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def drawing(curve: Curve) -> Drawing:
    """The curve on axes with round numbers, thinned to at most MOST_POINTS means of neighbouring steps."""
    parts = min(len(curve.steps), MOST_POINTS)
    with np.errstate(invalid="ignore"):  # of infinities of both signs
        steps, values = (
            np.array([part.mean() for part in np.array_split(of, parts)]) for of in (curve.steps, curve.values)
        )
    levels: list[float] = [*values[np.isfinite(values)].tolist(), *([curve.reference[1]] if curve.reference else [])]
    ticks = round_numbers(min(levels), max(levels)) if levels else [0.0, 1.0]
    last, (low, high) = max(float(curve.steps.max()), 1.0), (min(ticks + levels), max(ticks + levels))

    def y(value: float) -> float:
        return round(BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP), 1)

    points = [
        (round(LEFT + step / last * (RIGHT - LEFT), 1), y(value))
        for step, value in zip(steps.tolist(), values.tolist(), strict=True)
    ]
    return Drawing(
        [(y(tick), f"{100 * tick:.6g} %" if curve.percent else f"{tick:.6g}") for tick in ticks],
        f"{last:,.0f}",
        y(curve.reference[1]) if curve.reference else None,
        path(points),
        [point for point in points if math.isfinite(point[1])] if len(points) <= DOTS else [],
    )


def path(points: Sequence[tuple[float, float]]) -> str:
    """A line through points in SVG, broken where a point is not finite."""
    drawn, pen = [], "M"
    for x, y in points:
        known = math.isfinite(y)
        drawn.append(f"{pen}{x} {y}" if known else "")
        pen = "L" if known else "M"
    return "".join(drawn)


def round_numbers(low: float, high: float) -> list[float]:
    """Three to six round numbers whose range holds [low, high], or a range around it where the two agree."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):
        margin = abs(low) / 2 or 0.5
        low, high = low - margin, high + margin
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    first, last = min(first, -1) if low < 0 else first, max(last, 1) if high > 0 else last  # a share may vanish
    return [step * index for index in range(first, last + 1)]
