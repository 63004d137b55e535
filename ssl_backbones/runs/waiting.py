"""The time of a run that goes by beside its steps: waiting for images, with what shortens it, and measuring."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

MUCH = 0.1
"""Share above which a run is told what would be faster."""
SOON = 60.0
"""Seconds of steps before that."""


@dataclass
class Spent:
    """Seconds so far that went by beside the steps."""

    waiting: float = 0.0
    """For images."""
    measurements: float = 0.0

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Context manager: what is done meanwhile is measuring."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.measurements += time.perf_counter() - began


def share_of(speeds: Iterable[Mapping[str, Any]]) -> float | None:
    """The share of the steps' time by the lines of a speed.jsonl; None where they do not tell it."""
    waited = total = 0.0
    step = 0
    for line in speeds:
        rate, waiting = line.get("images_per_second", 0.0), line.get("waiting", math.nan)
        if 0 < rate < math.inf and math.isfinite(waiting):
            time = (line["step"] - step) / max(rate, 1e-9)
            waited, total = waited + waiting * time, total + time
        step = line["step"]
    return waited / total if total else None


def in_words(share: float, recipe: Mapping[str, Any]) -> str:
    """The share in words, with what would be faster where it is much."""
    told = f"{share:.0%} of the steps' time"
    return f"{told}: {faster(recipe)}" if share > MUCH else told


def faster(recipe: Mapping[str, Any]) -> str:
    """The options that would bring images sooner, of those that a recipe has and does not use yet.

    A run keeps the engine that it began with, so another one is for another run.
    """
    engine = recipe.get("engine")
    engines = [
        (
            "--engine opencv (several times as fast, where views follow a policy)",
            engine not in (None, "opencv", "device"),
        ),
        ("--engine device, where that is a GPU", engine not in (None, "device")),
    ]
    ways = [
        ("--cache FOLDER, which keeps images decoded", recipe.get("cache") == ""),
        ("--workers, which read beside the training", recipe.get("workers") == 0),
        ("--resident, which keeps the cache on the device", engine == "device" and recipe.get("resident") is False),
    ]
    found = [way for way, helps in ways if helps]
    if elsewhere := [way for way, helps in engines if helps]:
        found.append(f"in another run (--out), {' or '.join(elsewhere)}")
    return f"sooner with {'; '.join(found)}" if found else "sooner with more cores, or fewer other programs on them"


class WaitingAdvice:
    """Tells once, as a tracker of the run's log, that much of its time goes by waiting for images."""

    def __init__(self, recipe: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.recipe, self.say = recipe, say
        self.waited = self.total = 0.0
        self.seconds: float | None = None
        self.told = False

    def __call__(self, values: Mapping[str, float], step: int) -> None:
        """Take in a line of the log."""
        seconds, before = values["seconds"], self.seconds
        self.seconds = seconds
        if before is None or "waiting" not in values:
            return
        self.waited, self.total = self.waited + values["waiting"] * (seconds - before), self.total + seconds - before
        if not self.told and self.total >= SOON and self.waited > MUCH * self.total:
            self.told = True
            self.say(f"Waiting for images takes {in_words(self.waited / self.total, self.recipe)}.")
