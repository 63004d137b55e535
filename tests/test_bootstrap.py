"""The bootstrap: scipy's percentile interval, and the coverage that it claims."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from ssl_backbones.metrics import percentile_interval, resampled_counts


def means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """The mean (R,) of each resample of values (N,)."""
    found: np.ndarray = resampled_counts(len(values), resamples, seed) @ values / len(values)
    return found


def test_each_resample_draws_as_many_items_and_each_item_as_often() -> None:
    counts = resampled_counts(40, 5000, 3)
    assert counts.shape == (5000, 40)
    assert (counts.sum(1) == 40).all()
    assert np.abs(counts.mean(0) - 1).max() < 0.06
    assert counts.var() == pytest.approx(1 - 1 / 40, abs=0.02)  # of a multinomial
    assert np.array_equal(counts, resampled_counts(40, 5000, 3))
    assert not np.array_equal(counts, resampled_counts(40, 5000, 4))


def test_the_interval_is_scipys() -> None:
    values = np.random.default_rng(0).exponential(size=80)
    theirs = bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    ours = percentile_interval(values.mean(), means(values, 20_000, 2))
    assert ours.value == values.mean()
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=0.01)


def test_it_covers_as_often_as_it_says() -> None:
    held = []
    for seed in range(600):
        values = np.random.default_rng(seed).normal(size=60)
        found = percentile_interval(values.mean(), means(values, 200, seed))
        held.append(found.low <= 0 <= found.high)
    assert np.mean(held) == pytest.approx(0.94, abs=0.025)  # percentiles are a little too narrow at this size


def test_resamples_without_a_number_are_left_out() -> None:
    found = percentile_interval(0.5, np.array([math.nan, *np.linspace(0, 1, 41)]))
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.025, 0.975))
    assert math.isnan(percentile_interval(math.nan, np.array([math.nan])).low)
