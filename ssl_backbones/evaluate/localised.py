"""What maps are worth, photo by photo, and the table that tells it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from ssl_backbones.metrics import Gain, Interval, mean_interval, paired_difference

CENTRE, UNIFORM = "centre prior", "uniform"
"""The maps that know nothing of the photo."""


@dataclass(frozen=True)
class Row:
    """What one map of one network is worth, for each photo."""

    model: str
    map: str
    values: dict[str, Tensor]
    """Name of a measure to (N,), NaN where it does not apply."""

    def interval(self, measure: str) -> Interval | None:
        """The mean over photos, None where it was not measured."""
        return mean_interval(self.values[measure]) if measure in self.values else None

    def over(self, other: Row, measure: str) -> Gain:
        """By how much this map beats another, photo by photo."""
        return paired_difference(other.values[measure], self.values[measure])


def centre_of(found: Sequence[Row], row: Row) -> Row:
    """The centre prior's row of the same network."""
    return next(other for other in found if (other.model, other.map) == (row.model, CENTRE))


def table(found: Sequence[Row]) -> str:
    """The numbers in Markdown, and in words which maps are no better than the centre prior."""
    measures = [name for name in ("pointing", "energy", "deletion", "insertion") if name in found[0].values]
    lines = [
        "| network | map | " + " | ".join(measures) + " | pointing over centre | energy over centre |",
        "|---|---|" + "--:|" * (len(measures) + 2),
    ]
    for row in found:
        cells = [in_words(row.interval(measure)) for measure in measures]
        gains = [row.over(centre_of(found, row), measure) for measure in ("pointing", "energy")]
        cells += [
            "" if row.map == CENTRE else f"{gain.gain:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})" for gain in gains
        ]
        lines.append(f"| {row.model} | {row.map} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *verdicts(found)]) + "\n"


def in_words(interval: Interval | None) -> str:
    """A mean and its interval, or a dash where there is none."""
    return "-" if interval is None else f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def verdicts(found: Sequence[Row]) -> Iterator[str]:
    """A sentence on each measure: which maps do better than the centre prior beyond their intervals."""
    asked = [row for row in found if row.map not in (CENTRE, UNIFORM)]
    for measure in ("pointing", "energy"):
        better = [row for row in asked if row.over(centre_of(found, row), measure).low > 0]
        named = "; ".join(f"{row.map} of {row.model}" for row in better)
        rest = len(asked) - len(better)
        yield f"Better than the centre prior in {measure}: {named or 'none'}. The other {rest} of {len(asked)} are not."
