"""The second half of a run by its own measurements: do its numbers still rise?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_backbones.metrics import share_slope

FEWEST = 3
"""Measurements that a slope is told of."""


def late_trend(lines: Sequence[Mapping[str, Any]], of: Mapping[str, int]) -> dict[str, Any]:
    """The change of a share over the second half of a run, from the lines of its log, as results.json has it.

    `of` is the number of images behind each share, by name; the first name that was measured counts. "change" is left
    out for fewer than three measurements.
    """
    measured = [line for line in lines if "rank" in line]
    name = next((name for name in of if any(name in line for line in measured)), None)
    found = [line for line in measured if name is not None and 0 <= line.get(name, -1) <= 1]
    if name is None or not found:
        return {}
    last = int(found[-1]["step"])
    late = [line for line in found if 2 * line["step"] >= last and line["step"] > 0]
    steps = [int(line["step"]) for line in late]
    told: dict[str, Any] = {"of": name, "steps": steps, "shares": [float(line[name]) for line in late]}
    if len(set(steps)) >= FEWEST:
        slope = share_slope(steps, told["shares"], of[name])
        span = steps[-1] - steps[0]
        told["change"] = {"value": slope.value * span, "low": slope.low * span, "high": slope.high * span}
    if kept := [float(line["kept"]) for line in late if 0 <= line.get("kept", -1) <= 1]:
        told["kept"] = kept
    return told
