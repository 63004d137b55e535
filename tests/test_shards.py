"""An epoch's order over shards: all images once, window after window, by (seed, epoch) and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_backbones.data.shards import Shards
from ssl_backbones.views import permutation


def of(counts: list[int], window: int) -> Shards:
    return Shards(np.cumsum([0, *counts], dtype=np.int64), window)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 40), st.integers(0, 3))
def test_every_image_comes_once_and_windows_follow_one_another(counts: list[int], window: int, epoch: int) -> None:
    shards = of(counts, window)
    order = shards.order(5, epoch)
    assert np.array_equal(np.sort(order), np.arange(sum(counts)))
    windows = shards.windows(5, epoch)
    shown = windows[shards.shard_of[order]]
    assert (np.diff(shown) >= 0).all()
    sizes = np.bincount(shown, minlength=1)
    assert all(size >= window for size in sizes[:-1])
    assert all(size < window + max(counts) for size in sizes)


def test_one_window_has_the_order_of_images_without_shards() -> None:
    assert np.array_equal(of([4, 5, 3], 12).order(1, 2), permutation(1, 2, 12))


@pytest.mark.parametrize("other", [(6, 0), (5, 1)])
def test_seeds_and_epochs_have_orders_of_their_own(other: tuple[int, int]) -> None:
    shards = of([3] * 40, 30)
    assert np.array_equal(shards.order(5, 0), shards.order(5, 0))
    assert not np.array_equal(shards.windows(5, 0), shards.windows(*other))
    assert not np.array_equal(shards.order(5, 0), shards.order(*other))


def test_an_image_may_come_anywhere_in_its_window_and_a_shard_in_any_window() -> None:
    """Counts of 600 epochs are as even as chance has them: chi squared below its 99.99 % quantile."""
    shards = of([2] * 6, 4)
    windows = np.array([shards.windows(0, epoch) for epoch in range(600)])
    assert (windows.max(axis=1) == 2).all()
    first = np.array([np.bincount(windows[:, shard], minlength=3) for shard in range(6)])
    assert ((first - 200) ** 2 / (200)).sum(axis=1).max() < 18.4
    places = np.array([np.flatnonzero(shards.order(0, epoch) == 5)[0] % 4 for epoch in range(600)])
    assert ((np.bincount(places, minlength=4) - 150) ** 2 / 150).sum() < 21.1
