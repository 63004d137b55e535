"""Confidence intervals by the bootstrap: a number measured again on resamples of the items. Efron, 1979."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssl_backbones.metrics.interval import Interval


def resampled_counts(items: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Counts (R, N) of each item in each resample: as many draws with replacement as there are items."""
    stream = np.random.Generator(np.random.PCG64(seed))
    return np.array([np.bincount(stream.integers(0, items, items), minlength=items) for _ in range(resamples)])


def percentile_interval(value: float, resampled: NDArray[np.float64]) -> Interval:
    """The value, and the 2.5th and 97.5th percentiles of what the resamples (R,) gave, less those that gave NaN.

    Both ends are NaN where no resample gave a number.
    """
    known = resampled[np.isfinite(resampled)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))
