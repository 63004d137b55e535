"""Measures without labels and the slope of a share, each against a slow literal version."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssl_backbones.metrics import label_free, nearest_others, own_image_found, share_slope, shared_neighbours


def drawn(seed: int, rows: int, columns: int = 6) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def cosine(one: Tensor, other: Tensor) -> float:
    one, other = one.double(), other.double()
    return float(one @ other) / (float(one.norm()) * float(other.norm()))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), images=st.integers(1, 30), noise=st.floats(0, 3))
def test_a_view_finds_its_image_where_no_other_is_as_near(seed: int, images: int, noise: float) -> None:
    bank = drawn(seed, images)
    own = torch.randint(images, (12,), generator=torch.Generator().manual_seed(seed))
    views = bank[own] + noise * drawn(seed + 1, 12)
    found = own_image_found(views, bank, own)
    for view, row, answer in zip(views, own.tolist(), found.tolist(), strict=True):
        others = [cosine(view, image) for at, image in enumerate(bank) if at != row]
        margin = cosine(view, bank[row]) - max(others, default=-2)
        if abs(margin) > 1e-5:
            assert answer == (margin > 0)


def test_features_that_are_all_alike_and_copies_find_nothing() -> None:
    own = torch.arange(5)
    assert not own_image_found(torch.ones(5, 3), torch.ones(5, 3), own).any()
    bank = drawn(0, 5)
    bank[4] = 2 * bank[3]  # another length, the same direction
    assert own_image_found(bank, bank, own).tolist() == [True, True, True, False, False]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(2, 25), k=st.integers(1, 24))
def test_the_nearest_others_are_those_sorted_by_hand(seed: int, rows: int, k: int) -> None:
    k = min(k, rows - 1)
    features = drawn(seed, rows)
    found = nearest_others(features, k)
    for row in range(rows):
        others = sorted((at for at in range(rows) if at != row), key=lambda at: -cosine(features[row], features[at]))
        assert found[row].tolist() == sorted(others[:k])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(3, 20), k=st.integers(1, 19))
def test_shared_neighbours_are_sets_that_overlap(seed: int, rows: int, k: int) -> None:
    k = min(k, rows - 1)
    one, other = nearest_others(drawn(seed, rows), k), nearest_others(drawn(seed + 1, rows, 4), k)
    shares = [len({*a} & {*b}) / k for a, b in zip(one.tolist(), other.tolist(), strict=True)]
    assert shared_neighbours(one, other).tolist() == pytest.approx(shares)
    assert (shared_neighbours(one, one) == 1).all()


def test_unrelated_networks_share_neighbours_by_chance() -> None:
    shares = shared_neighbours(nearest_others(drawn(1, 400), 10), nearest_others(drawn(2, 400), 10))
    assert shares.mean().item() == pytest.approx(10 / 399, abs=4 * float(shares.std()) / 20)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, views, own = drawn(3, 40), drawn(3, 40) + 0.4 * drawn(4, 40), torch.arange(40)
    found, near = own_image_found(views, bank, own), nearest_others(bank, 5)
    monkeypatch.setattr(label_free, "BLOCK", 3 * len(bank))
    assert torch.equal(own_image_found(views, bank, own), found)
    assert torch.equal(nearest_others(bank, 5), near)
    assert 5 < int(found.sum()) < 40


@settings(max_examples=40, deadline=None)
@given(
    shares=st.lists(st.floats(0, 1), min_size=2, max_size=9),
    total=st.integers(1, 5000),
    first=st.integers(0, 1000),
)
def test_the_slope_is_numpys_weighted_line(shares: list[float], total: int, first: int) -> None:
    steps = [first + 10 * number for number in range(len(shares))]
    centred = np.array([(share * total + 2) / (total + 4) for share in shares])
    sigma = np.sqrt(centred * (1 - centred) / (total + 4))
    slope = share_slope(steps, shares, total)
    middle = np.array(steps) - np.mean(steps)
    line, covariance = np.polyfit(middle, shares, 1, w=1 / sigma, cov="unscaled")
    assert slope.value == pytest.approx(line[0], abs=1e-9)
    assert slope.high - slope.value == pytest.approx(1.959964 * math.sqrt(covariance[0, 0]), rel=1e-5)
    assert slope.value - slope.low == pytest.approx(slope.high - slope.value)


def test_a_flat_share_has_an_interval_around_nothing_in_95_of_100() -> None:
    stream = np.random.default_rng(0)
    steps = [0, 1, 2, 3, 4]
    inside = [
        slope.low <= 0 <= slope.high
        for slope in (share_slope(steps, (stream.binomial(300, 0.4, 5) / 300).tolist(), 300) for _ in range(2000))
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: own_image_found(drawn(0, 2), drawn(0, 3, 5), torch.arange(2)), "give (M, D) and (N, D)"),
        (lambda: own_image_found(drawn(0, 2), drawn(0, 3), torch.tensor([0, 3])), "from 0 to 2"),
        (lambda: own_image_found(drawn(0, 2), drawn(0, 3) / 0, torch.arange(2)), "NaN or infinity"),
        (lambda: nearest_others(drawn(0, 4), 4), "k is 4 for 4 features"),
        (lambda: shared_neighbours(torch.zeros(2, 3), torch.zeros(3, 3)), "row for row"),
        (lambda: share_slope([1, 1], [0.2, 0.3], 10), "at other steps"),
        (lambda: share_slope([1, 2], [0.2], 10), "2 steps and 1 shares"),
    ],
)
def test_what_does_not_fit_is_refused(ask, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(").replace(")", r"\)")):
        ask()
