"""The work of a run whose views grow with the epochs: that of a step goes with the pixels of its views."""

from __future__ import annotations

from collections import Counter
from statistics import fmean

from ssl_backbones.recipes.recipe import Run


def pixels(run: Run) -> list[float]:
    """The pixels of the views of each epoch, as a share of those of whole ones."""
    return [(side / run.size) ** 2 for side in run.sides]


def effort(run: Run, steps_per_epoch: int, steps: int) -> float:
    """The work of the first `steps` optimiser steps, in steps of whole views."""
    shares, (epochs, rest) = pixels(run), divmod(steps, steps_per_epoch)
    return steps_per_epoch * sum(shares[:epochs]) + (rest * shares[epochs] if rest else 0)


def of_whole_views(run: Run) -> str:
    """The words on the views that a time is of, in a run whose views grow; empty for any other."""
    return f" of views of {run.size} px" if min(run.sides) < run.size else ""


def growth(run: Run) -> str:
    """A sentence on the sides of the views of a run whose views grow, and what they save; empty for any other."""
    counts = Counter(run.sides)
    if len(counts) == 1:
        return ""
    listed = ", then ".join(f"{side} px for {count} epoch{'s' if count > 1 else ''}" for side, count in counts.items())
    anew = "; the network is compiled anew for each side" if run.compile else ""
    return f"Views grow: {listed}, in all {fmean(pixels(run)):.0%} of the pixels of whole ones{anew}."
