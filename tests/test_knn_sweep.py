"""k-NN swept in one pass: no other than k-NN done anew for each k and temperature; and a jackknife that covers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from test_metrics import features

from ssl_backbones.metrics import jackknife_interval, knn, knn_predict, knn_sweep

KS, TEMPERATURES = (20, 1, 7, 500), (0.2, 0.03)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 60),
    queries=st.integers(1, 30),
    bank_rows=st.integers(1, 70),
    block=st.integers(1, 400),
)
def test_a_sweep_in_parts_is_each_answer_alone(seed: int, rows: int, queries: int, bank_rows: int, block: int) -> None:
    bank, labels = features(seed, rows, 8, 4)
    asked, _ = features(seed + 1, queries, 8, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "BANK_ROWS", bank_rows)
        patch.setattr(knn, "BLOCK", block)
        swept = knn_sweep(bank, labels, asked, ks=KS, temperatures=TEMPERATURES, num_classes=4)
    for row, k in enumerate(KS):
        for column, temperature in enumerate(TEMPERATURES):
            alone = knn_predict(bank, labels, asked, k=k, temperature=temperature, num_classes=4)
            assert torch.equal(swept[row, column], alone)


@pytest.mark.parametrize("bank_rows", [10, 64, 1000])
def test_the_neighbours_in_parts_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch, bank_rows: int) -> None:
    monkeypatch.setattr(knn, "BANK_ROWS", bank_rows)
    bank, labels = features(0, 300, 8, 4)
    queries, _ = features(1, 100, 8, 4)
    named = knn_sweep(bank, labels, queries, ks=(1, 30, 200), temperatures=(0.07, 0.5))
    for row, k in enumerate((1, 30, 200)):
        for column, temperature in enumerate((0.07, 0.5)):
            weights = lambda distance, t=temperature: np.exp(-distance / t)  # noqa: E731
            oracle = KNeighborsClassifier(k, metric="cosine", weights=weights)
            expected = oracle.fit(bank.double().numpy(), labels.numpy()).predict(queries.double().numpy())
            assert named[row, column].tolist() == expected.tolist()


@pytest.mark.parametrize("bank_rows", [3, 16, 100])
def test_rows_of_the_bank_do_not_vote_on_themselves(monkeypatch: pytest.MonkeyPatch, bank_rows: int) -> None:
    monkeypatch.setattr(knn, "BANK_ROWS", bank_rows)
    bank, labels = features(2, 40, 8, 4)
    itself = torch.tensor([39, 0, 17, 3, 16])
    swept = knn_sweep(bank, labels, bank[itself], ks=KS, temperatures=TEMPERATURES, num_classes=4, itself=itself)
    for at, row in enumerate(itself):
        others = torch.arange(40) != row
        alone = knn_sweep(
            bank[others], labels[others], bank[row][None], ks=KS, temperatures=TEMPERATURES, num_classes=4
        )
        assert torch.equal(swept[:, :, at], alone[:, :, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ks": ()}, r"ks are \[\] and temperatures \[0.1\]"),
        ({"temperatures": ()}, r"temperatures \[\]"),
        ({"ks": (3, 0)}, "k is 0"),
        ({"temperatures": (0.1, -1.0)}, "temperature -1.0"),
        ({"itself": torch.arange(3)}, r"itself is \(3,\); give the row of each of 2 queries"),
    ],
)
def test_a_sweep_refuses_what_it_cannot_answer(change: dict[str, object], message: str) -> None:
    asked = {"ks": (1,), "temperatures": (0.1,)}
    with pytest.raises(ValueError, match=message):
        knn_sweep(torch.ones(6, 4), torch.zeros(6, dtype=torch.long), torch.ones(2, 4), **{**asked, **change})


def order(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(count)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    x = torch.randn(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # With groups of one this is exact: ten rows twice over stand for ten groups of two equal ones.
    doubled = x[:10].repeat(2)
    groups = np.concatenate([np.arange(10), np.arange(10, 20)])
    found = jackknife_interval(lambda rows: doubled[rows].mean().item(), groups)
    error = x[:10].std().item() / math.sqrt(10)
    assert found.value == pytest.approx(x[:10].mean().item())
    assert found.high - found.value == pytest.approx(2.2621571628 * error)
    assert found.value - found.low == pytest.approx(2.2621571628 * error)


def test_the_jackknife_covers_as_often_as_it_says() -> None:
    held = []
    for seed in range(400):
        x = torch.from_numpy(np.random.default_rng(seed).exponential(size=100))
        found = jackknife_interval(lambda rows, x=x: x[rows].std().item(), order(100, seed))
        held.append(found.low <= 1 <= found.high)
    assert 0.85 <= np.mean(held) <= 0.98


def test_the_jackknife_wants_two_rows_a_group() -> None:
    with pytest.raises(ValueError, match="there are 19 rows; give at least 20"):
        jackknife_interval(lambda rows: 0.0, order(19))
