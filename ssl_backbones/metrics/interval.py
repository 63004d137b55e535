"""Confidence intervals of an accuracy, of a gain, and by the bootstrap (Efron, 1979).

Wilson, 1927. https://doi.org/10.1080/01621459.1927.10502953
Agresti and Min, 2005. https://doi.org/10.1002/sim.1781
Newcombe, 1998. Interval estimation for the difference between independent proportions: comparison of eleven methods.
Student's distribution: Abramowitz and Stegun, 1972, Handbook of Mathematical Functions, 26.7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist, fmean, stdev

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

EQUAL = 1e-6
"""Spread below which values differ by rounding alone."""


@dataclass(frozen=True)
class Interval:
    """A number, such as a proportion in [0, 1], and the interval that holds the true one with the stated confidence."""

    value: float
    """The number."""
    low: float
    """The lower end."""
    high: float
    """The upper end."""


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of `correct` out of `total`; ValueError for counts that are none."""
    if not 0 <= correct <= total or total < 1:
        raise ValueError(f"correct is {correct} of {total}; give 0 <= correct <= total and a total of at least 1.")
    z = two_sided(confidence)
    p = correct / total
    centre = (p + z**2 / (2 * total)) / (1 + z**2 / total)
    reach = z / (1 + z**2 / total) * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    return Interval(p, max(0.0, min(p, centre - reach)), min(1.0, max(p, centre + reach)))


def paired_gain(before_correct: Tensor, after_correct: Tensor, confidence: float = 0.95) -> Interval:
    """The gain of a second classifier over a first on the same items, both (M,) bool: right or wrong.

    Only items on which the two disagree carry evidence. Half of one is added to each cell of the 2 x 2 table (Agresti
    and Min), which keeps the interval honest where few disagree; `gain` itself is the plain difference.
    ValueError where they do not pair.
    """
    if before_correct.shape != after_correct.shape or before_correct.ndim != 1 or not len(before_correct):
        raise ValueError(
            f"before is {tuple(before_correct.shape)} and after {tuple(after_correct.shape)}; give (M,), item for item."
        )
    if before_correct.dtype != torch.bool or after_correct.dtype != torch.bool:
        raise ValueError(
            f"before is {before_correct.dtype} and after {after_correct.dtype}; give bool, right or wrong."
        )
    won = int((after_correct & ~before_correct).sum())
    lost = int((before_correct & ~after_correct).sum())
    total = len(before_correct)
    b, c, n = won + 0.5, lost + 0.5, total + 2
    centre = (b - c) / n
    reach = two_sided(confidence) * math.sqrt((b + c) - (b - c) ** 2 / n) / n
    gain = (won - lost) / total
    return Interval(gain, max(-1.0, min(gain, centre - reach)), min(1.0, max(gain, centre + reach)))


def newcombe_difference(one: Interval, other: Interval) -> Interval:
    """The difference `one` - `other` of two independent proportions, its interval out of both their own (method 10)."""
    above = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    beyond = math.hypot(one.high - one.value, other.value - other.low)
    return Interval(above, above - below, above + beyond)


def student_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of two values or more, and Student's interval of it."""
    mean, reach = fmean(values), student_t(len(values) - 1, confidence) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - reach, mean + reach)


@cache
def student_t(freedom: int, confidence: float = 0.95) -> float:
    """The t with `confidence` of Student's distribution, of so many degrees of freedom, between -t and t.

    By bisection of the angle whose tangent is t over the root of the degrees. ValueError for a confidence that is none.
    """
    two_sided(confidence)
    odd, low, high = freedom % 2, 0.0, math.pi / 2
    powers = np.arange(2 + odd, freedom - 1, 2)
    for _ in range(60):
        angle = (low + high) / 2
        terms = np.cumprod((powers - 1) / powers * math.cos(angle) ** 2)
        series = math.sin(angle) * math.cos(angle) ** odd * (1 + terms.sum()) if freedom > 1 else 0.0
        inside = (angle + series) * 2 / math.pi if odd else series
        low, high = (angle, high) if inside < confidence else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def two_sided(confidence: float) -> float:
    """The z with `confidence` of a standard normal between -z and z."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; give a share between 0 and 1, such as 0.95.")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def mean_interval(values: Tensor, confidence: float = 0.95) -> Interval:
    """The mean of values (M,) in [0, 1], and Student's interval of it; NaN are left out.

    Of values that are all 0 or 1, Wilson's. ValueError for fewer than two.
    """
    known = values[~values.isnan()].double()
    if len(known) < 2:
        raise ValueError(f"there are {len(known)} values; give at least 2.")
    if bool(((known == 0) | (known == 1)).all()):
        return wilson_interval(int(known.sum()), len(known), confidence)
    return bounded(known, 0.0, confidence)


def paired_difference(before: Tensor, after: Tensor, confidence: float = 0.95) -> Interval:
    """The mean difference of values (M,) in [0, 1] to others of the same items; NaN in either are left out.

    ValueError where they do not pair, or for fewer than two.
    """
    if before.shape != after.shape or before.ndim != 1:
        raise ValueError(f"before is {tuple(before.shape)} and after {tuple(after.shape)}; give (M,), item for item.")
    gaps = (after - before).double()
    gaps = gaps[~gaps.isnan()]
    if len(gaps) < 2:
        raise ValueError(f"there are {len(gaps)} pairs; give at least 2.")
    return bounded(gaps, -1.0, confidence)


def bounded(values: Tensor, least: float, confidence: float) -> Interval:
    """The mean of values (M,) from `least` to 1, and Student's interval of it, which ends there.

    Values equal but for rounding show no spread: theirs has room for as many others as so many draws may have missed,
    by Wilson.
    """
    mean = values.mean().item()
    if values.max() - values.min() < EQUAL:
        missed = wilson_interval(0, len(values), confidence).high
        return Interval(mean, mean - missed * (mean - least), mean + missed * (1 - mean))
    reach = student_t(len(values) - 1, confidence) * values.std().item() / math.sqrt(len(values))
    return Interval(mean, max(least, mean - reach), min(1.0, mean + reach))


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
