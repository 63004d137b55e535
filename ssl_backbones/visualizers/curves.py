"""A run's numbers over its steps, as small drawings in SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_backbones.visualizers.markup import text

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 30
MOST_POINTS = 240
"""A curve of more is drawn by means of neighbouring steps."""
DOTS = 24
"""A curve of at most so many has a dot at each."""


@dataclass(frozen=True)
class Curve:
    """One number over the steps."""

    title: str
    steps: np.ndarray
    """(N,) rising."""
    values: np.ndarray
    """(N,); one that is not finite leaves a gap."""
    reference: tuple[str, float] | None = None
    """A level to compare with, and what it is."""
    percent: bool = False

    def told(self, value: float) -> str:
        """A value in few digits, as it stands in a sentence."""
        return f"{100 * value:.1f} %" if self.percent else f"{value:.3g}"

    def sentence(self) -> str:
        """What the curve shows, for those who do not see it."""
        finite = self.values[np.isfinite(self.values)]
        if not len(finite):
            return f"{self.title}: no finite value in {len(self.values)}."
        level = f"; {self.reference[0]} is {self.told(self.reference[1])}" if self.reference else ""
        ends = f"from {self.told(finite[0])} at step {self.steps[np.isfinite(self.values)][0]:,}"
        ends += f" to {self.told(finite[-1])} at step {self.steps[np.isfinite(self.values)][-1]:,}"
        return f"{self.title}: {ends}, lowest {self.told(finite.min())}, highest {self.told(finite.max())}{level}."


SHOWN = {
    "loss": ("Loss", False),
    "accuracy": ("Accuracy at the training task", True),
    "knn": ("k-NN accuracy", True),
    "rank": ("Effective rank of the features", False),
    "std": ("Spread of the features", False),
    "lr": ("Learning rate", False),
}
"""What of a log is drawn, in this order: its title, and whether it is a share."""


def run_curves(lines: Sequence[Mapping[str, Any]], *, knn_chance: float | None = None) -> list[Curve]:
    """The curves of a run's log: one for each number that is worth drawing, with chance as the level where known."""
    curves = []
    for name, (title, percent) in SHOWN.items():
        found = [(line["step"], line[name], line.get("chance")) for line in lines if is_number(line.get(name))]
        if not found:
            continue
        steps, values, levels = zip(*found, strict=True)
        chance = knn_chance if name == "knn" else levels[-1] if name == "loss" else None
        reference = None if chance is None else ("chance", float(chance))
        curves.append(Curve(title, np.asarray(steps), np.asarray(values, float), reference, percent))
    return curves


def is_number(value: Any) -> bool:
    """Whether a value of a log is a number, finite or not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def curve_svg(curve: Curve) -> str:
    """The curve on axes with round numbers, in the colours of the page around it."""
    steps, values = thinned(curve)
    finite = values[np.isfinite(values)]
    levels = [*finite.tolist(), *([curve.reference[1]] if curve.reference else [])]
    ticks = round_numbers(min(levels), max(levels)) if levels else [0.0, 1.0]
    low, high = float(min([*ticks, *levels])), float(max([*ticks, *levels]))
    last = max(float(steps.max()), 1.0)

    def x(step: float) -> float:
        return LEFT + step / last * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(curve.sentence())}">',
        *(level(y(tick), shown(tick, curve.percent)) for tick in ticks),
        *(
            f'<text class="tick" x="{x(tick):.1f}" y="{HEIGHT - 10}" text-anchor="{anchor}">{tick:,.0f}</text>'
            for tick, anchor in ((0, "start"), (last, "end"))
        ),
        f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">step</text>',
    ]
    if curve.reference:
        at = y(curve.reference[1])
        parts.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        above = at - 5 if at > TOP + 16 else at + 14
        name = text(curve.reference[0])
        parts.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{above:.1f}" text-anchor="end">{name}</text>')
    parts.append(f'<path class="line" d="{path([(x(s), y(v)) for s, v in zip(steps, values, strict=True)])}"/>')
    if len(finite) <= DOTS:
        pairs = [(s, v) for s, v in zip(steps, values, strict=True) if math.isfinite(v)]
        parts += [f'<circle class="dot" cx="{x(s):.1f}" cy="{y(v):.1f}" r="3.5"/>' for s, v in pairs]
    return "".join([*parts, "</svg>"])


def thinned(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of at most MOST_POINTS, each the mean of its neighbourhood; the ends stay where they are."""
    if len(curve.steps) <= MOST_POINTS:
        return curve.steps, curve.values
    parts = np.array_split(np.arange(1, len(curve.steps) - 1), MOST_POINTS - 2)
    groups = [np.array([0]), *parts, np.array([len(curve.steps) - 1])]
    return tuple(np.array([of[group].mean() for group in groups]) for of in (curve.steps, curve.values))  # type: ignore[return-value]


def path(points: Sequence[tuple[float, float]]) -> str:
    """A line through points in SVG, broken where a point is not finite."""
    drawn, pen = [], "M"
    for px, py in points:
        if math.isfinite(py):
            drawn.append(f"{pen}{px:.1f} {py:.1f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(drawn)


def level(y: float, label: str) -> str:
    """A line across the drawing with its number at the left."""
    return (
        f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text(label)}</text>'
    )


def shown(value: float, percent: bool) -> str:
    """A round number beside an axis."""
    return f"{100 * value:.6g} %" if percent else f"{value:.6g}"


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
