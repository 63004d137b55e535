"""Metrics against other people's libraries, slow literal versions and known answers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from ssl_backbones.metrics import (
    alignment,
    effective_rank,
    feature_std,
    knn,
    knn_accuracy,
    knn_predict,
    newcombe_difference,
    paired_gain,
    uniformity,
    wilson_interval,
)

sizes = st.integers(1, 40)


def features(seed: int, rows: int, columns: int, classes: int) -> tuple[Tensor, Tensor]:
    """Features (N, D) of overlapping classes, and their labels (N,)."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (rows,), generator=stream)
    centres = torch.randn(classes, columns, generator=torch.Generator().manual_seed(9))
    return torch.randn(rows, columns, generator=stream) + 0.7 * centres[labels], labels


def vote(
    bank: np.ndarray, labels: np.ndarray, query: np.ndarray, k: int, temperature: float, classes: int
) -> np.ndarray:
    """The votes (C,) for one query, as one would count them by hand."""
    cosine = [float(row @ query) / (float(np.linalg.norm(row)) * float(np.linalg.norm(query))) for row in bank]
    votes = np.zeros(classes)
    for at in sorted(range(len(bank)), key=lambda i: -cosine[i])[:k]:
        votes[labels[at]] += math.exp((cosine[at] - 1) / temperature)
    return votes


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), rows=sizes, queries=sizes, k=st.integers(1, 60), classes=st.integers(1, 6))
def test_knn_is_the_vote_counted_by_hand(seed: int, rows: int, queries: int, k: int, classes: int) -> None:
    bank, labels = features(seed, rows, 8, classes)
    asked, _ = features(seed + 1, queries, 8, classes)
    named = knn_predict(bank, labels, asked, k=k, temperature=0.1, num_classes=classes)
    for query, answer in zip(asked.double().numpy(), named, strict=True):
        votes = vote(bank.double().numpy(), labels.numpy(), query, k, 0.1, classes)
        assert votes[answer] >= votes.max() * (1 - 1e-4)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (200, 0.07), (200, 1.0)])
def test_knn_agrees_with_scikit_learn(k: int, temperature: float) -> None:
    bank, labels = features(0, 500, 16, 10)
    queries, truth = features(1, 300, 16, 10)
    classifier = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp(-distance / temperature))
    expected = classifier.fit(bank.double().numpy(), labels.numpy()).predict(queries.double().numpy())
    named = knn_predict(bank, labels, queries, k=k, temperature=temperature)
    assert named.tolist() == expected.tolist()
    accuracy = knn_accuracy(bank, labels, queries, truth, k=k, temperature=temperature)
    assert accuracy == pytest.approx((expected == truth.numpy()).mean())
    assert 0.3 < accuracy < 0.999


def test_the_weights_decide_where_a_plain_majority_would_not() -> None:
    bank = torch.tensor([[1.0, 0.01], [0.0, 1.0], [0.05, 1.0]])
    labels = torch.tensor([0, 1, 1])
    query = torch.tensor([[1.0, 0.0]])
    assert knn_predict(bank, labels, query, k=3, temperature=0.1).item() == 0
    assert knn_predict(bank, labels, query, k=3, temperature=100.0).item() == 1


def test_a_tiny_temperature_still_votes() -> None:
    bank, labels = torch.tensor([[1.0, 1.0], [-1.0, 1.0]]), torch.tensor([1, 0])
    assert knn_predict(bank, labels, torch.tensor([[1.0, 0.9]]), temperature=1e-4).item() == 1
    assert knn_predict(bank, labels, torch.tensor([[1.0, -1.1]]), k=1, temperature=1e-4).item() == 1


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, labels = features(3, 90, 8, 4)
    whole = knn_predict(bank, labels, bank, k=5, exclude_self=True)
    monkeypatch.setattr(knn, "BLOCK", 7 * 90)
    assert torch.equal(knn_predict(bank, labels, bank, k=5, exclude_self=True), whole)


def test_leave_one_out_is_each_row_against_the_others() -> None:
    bank, labels = features(4, 30, 8, 3)
    named = knn_predict(bank, labels, bank, k=4, num_classes=3, exclude_self=True)
    for row in range(30):
        others = torch.arange(30) != row
        alone = knn_predict(bank[others], labels[others], bank[row : row + 1], k=4, num_classes=3)
        assert named[row] == alone
    assert knn_accuracy(bank, labels, bank, labels, k=1) == 1
    assert knn_accuracy(bank, labels, bank, labels, k=1, exclude_self=True) < 1


def test_no_queries_and_half_precision_are_answered() -> None:
    bank, labels = features(5, 50, 8, 3)
    assert knn_predict(bank, labels, bank[:0]).shape == (0,)
    half = knn_predict(bank.bfloat16(), labels, bank.bfloat16(), k=1)
    assert torch.equal(half, labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": torch.zeros(2, 3)}, r"bank is \(6, 4\) and queries are \(2, 3\)"),
        ({"bank_labels": torch.zeros(5, dtype=torch.long)}, r"int64 \(6,\)"),
        ({"bank_labels": torch.zeros(6)}, "torch.float32"),
        ({"bank_labels": torch.tensor([0, 0, 0, 0, 0, -1])}, "from -1 to 0"),
        ({"bank_labels": torch.tensor([0, 0, 0, 0, 0, 7]), "num_classes": 3}, "from 0 to 7"),
        ({"k": 0}, "k is 0"),
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"exclude_self": True}, "exclude_self with 2 queries and a bank of 6"),
        ({"bank": torch.ones(0, 4), "bank_labels": torch.zeros(0, dtype=torch.long)}, "holds 0 features"),
        ({"bank": torch.full((6, 4), torch.nan)}, "NaN"),
    ],
)
def test_knn_refuses_what_it_cannot_answer(change: dict[str, object], message: str) -> None:
    asked = {"bank": torch.ones(6, 4), "bank_labels": torch.zeros(6, dtype=torch.long), "queries": torch.ones(2, 4)}
    with pytest.raises(ValueError, match=message):
        knn_predict(**{**asked, **change})


def gaussian(rows: int, columns: int, rank: int) -> Tensor:
    """Features (N, D) that span `rank` dimensions evenly."""
    stream = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(columns, rank, generator=stream, dtype=torch.float64)).Q
    return torch.randn(rows, rank, generator=stream, dtype=torch.float64) @ basis.T


def test_effective_rank_counts_the_dimensions() -> None:
    assert effective_rank(torch.eye(12)) == pytest.approx(12, rel=1e-4)
    assert effective_rank(torch.ones(50, 8)) == pytest.approx(1, rel=1e-4)
    assert effective_rank(gaussian(4096, 64, 64)) == pytest.approx(64, rel=0.01)
    assert effective_rank(gaussian(4096, 64, 8)) == pytest.approx(8, rel=0.01)
    assert effective_rank(torch.zeros(5, 3)) == 0


def test_effective_rank_is_the_entropy_of_singular_values() -> None:
    values = torch.tensor([5.0, 3.0, 1.0, 0.5])
    share = (values / values.sum()).tolist()
    expected = math.exp(-sum(p * math.log(p) for p in share))
    assert effective_rank(torch.diag(values)) == pytest.approx(expected, rel=1e-5)
    assert effective_rank(torch.diag(values).bfloat16()) == pytest.approx(expected, rel=1e-5)


def test_the_standard_deviation_sees_complete_collapse_only() -> None:
    nearly_one_point = 1 + 1e-4 * torch.randn(512, 64, generator=torch.Generator().manual_seed(0))
    assert feature_std(gaussian(4096, 64, 64)) == pytest.approx(1, abs=0.01)
    assert feature_std(gaussian(4096, 64, 8)) > 0.9
    assert feature_std(nearly_one_point) < 0.01
    x = gaussian(20, 6, 6).numpy()
    by_hand = (x / np.linalg.norm(x, axis=1, keepdims=True)).std(axis=0).mean() * math.sqrt(6)
    assert feature_std(torch.from_numpy(x)) == pytest.approx(by_hand)


def test_alignment_and_uniformity_are_their_double_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = gaussian(23, 5, 5), gaussian(23, 5, 4) + 0.3
    a, b = (v.numpy() / np.linalg.norm(v.numpy(), axis=1, keepdims=True) for v in (x, y))
    assert alignment(x, y) == pytest.approx(np.mean([np.sum((p - q) ** 2) for p, q in zip(a, b, strict=True)]))
    assert alignment(x, y, alpha=1) == pytest.approx(
        np.mean([np.linalg.norm(p - q) for p, q in zip(a, b, strict=True)])
    )
    pairs = [math.exp(-2 * np.sum((a[i] - a[j]) ** 2)) for i in range(23) for j in range(23) if i != j]
    assert uniformity(x) == pytest.approx(math.log(np.mean(pairs)))
    monkeypatch.setattr("ssl_backbones.metrics.collapse.BLOCK", 4 * 23)
    assert uniformity(x) == pytest.approx(math.log(np.mean(pairs)))
    assert uniformity(torch.ones(9, 4)) == pytest.approx(0)
    for dead in (9, 8, 4, 1):
        x = torch.cat([torch.zeros(dead, 4), gaussian(9 - dead, 4, 4)]) if dead < 9 else torch.zeros(9, 4)
        a = torch.nn.functional.normalize(x.double(), dim=1).numpy()
        pairs = [math.exp(-2 * np.sum((a[i] - a[j]) ** 2)) for i in range(9) for j in range(9) if i != j]
        assert uniformity(x) == pytest.approx(math.log(np.mean(pairs)))
    assert alignment(x, 3 * x) == pytest.approx(0)


@given(seed=st.integers(0, 10**6), rows=st.integers(2, 30), columns=st.integers(1, 12), scale=st.floats(1e-3, 1e3))
@settings(max_examples=40, deadline=None)
def test_spread_ignores_scale_and_stays_in_its_range(seed: int, rows: int, columns: int, scale: float) -> None:
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert 1 - 1e-6 <= effective_rank(x) <= min(rows, columns) + 1e-3
    assert effective_rank(x * scale) == pytest.approx(effective_rank(x), rel=1e-9)
    assert 0 <= feature_std(x) <= 1 + 1e-9
    assert feature_std(x * scale) == pytest.approx(feature_std(x), abs=1e-9)
    assert uniformity(x) <= 1e-9


@pytest.mark.parametrize("metric", [feature_std, effective_rank, uniformity])
def test_spread_refuses_what_is_not_features(metric: Callable[[Tensor], float]) -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 4\); give \(N, D\)"):
        metric(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="NaN or infinity"):
        metric(torch.full((4, 4), torch.inf))


def test_wilson_gives_the_textbook_interval() -> None:
    # Newcombe, 1998, table I: 81 of 263, 15 of 148, 0 of 20 and 1 of 29.
    known = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0, 0.1611), (1, 29): (0.0061, 0.1718)}
    for (correct, total), expected in known.items():
        interval = wilson_interval(correct, total)
        assert interval.value == correct / total
        assert (interval.low, interval.high) == pytest.approx(expected, abs=5e-5)


@given(correct=st.integers(0, 300), more=st.integers(0, 300), confidence=st.floats(0.5, 0.999))
def test_wilson_is_scipys(correct: int, more: int, confidence: float) -> None:
    total = correct + more or 1
    theirs = binomtest(correct, total).proportion_ci(confidence, "wilson")
    ours = wilson_interval(correct, total, confidence)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_newcombe_gives_the_textbook_interval() -> None:
    # Newcombe, 1998, table II, by his method 10: 56 of 70 against 48 of 80, and 9 of 10 against 3 of 10.
    known = {((56, 70), (48, 80)): (0.2, 0.0524, 0.3339), ((9, 10), (3, 10)): (0.6, 0.1705, 0.8090)}
    for counts, expected in known.items():
        found = newcombe_difference(*(wilson_interval(*of) for of in counts))
        assert (found.value, found.low, found.high) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("one", "other"), [(0.6, 0.4), (0.5, 0.5), (0.95, 0.9)])
def test_newcombe_covers_as_often_as_it_says(one: float, other: float) -> None:
    stream = np.random.default_rng(0)
    held = []
    for first, second in zip(stream.binomial(150, one, 3000), stream.binomial(90, other, 3000), strict=True):
        found = newcombe_difference(wilson_interval(int(first), 150), wilson_interval(int(second), 90))
        held.append(found.low <= one - other <= found.high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


@given(total=st.integers(1, 500), share=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_wilson_holds_the_proportion_and_mirrors(total: int, share: float, confidence: float) -> None:
    correct = round(share * total)
    interval, mirrored = (
        wilson_interval(correct, total, confidence),
        wilson_interval(total - correct, total, confidence),
    )
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((interval.low, interval.high), abs=1e-12)


@pytest.mark.parametrize("truth", [0.05, 0.35, 0.9])
def test_wilson_covers_as_often_as_it_says(truth: float) -> None:
    drawn = np.random.default_rng(0).binomial(200, truth, size=4000)
    held = [(i.low <= truth <= i.high) for i in (wilson_interval(int(correct), 200) for correct in drawn)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    ("items", "won", "lost"), [(300, 0.12, 0.04), (300, 0.05, 0.05), (80, 0.3, 0.1), (1000, 0.01, 0.0)]
)
def test_a_paired_interval_covers_as_often_as_it_says(items: int, won: float, lost: float) -> None:
    stream = np.random.default_rng(1)
    held = []
    for _ in range(1500):
        draw = torch.from_numpy(stream.random(items))
        after_only, before_only = draw < won, (draw >= won) & (draw < won + lost)
        both = draw > 0.6
        found = paired_gain(both | before_only, both | after_only)
        held.append(found.low <= won - lost <= found.high)
    assert 0.93 <= np.mean(held) <= 0.985


def test_pairing_narrows_what_separate_intervals_cannot_tell() -> None:
    before = torch.arange(400) % 2 == 0
    after = before.clone()
    after[torch.arange(1, 61, 2)] = True
    found = paired_gain(before, after)
    assert found.value == pytest.approx(30 / 400)
    assert 0 < found.low < found.value < found.high
    assert wilson_interval(int(before.sum()), 400).high > wilson_interval(int(after.sum()), 400).low


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_gain_turned_round_is_a_loss(outcomes: list[tuple[bool, bool]]) -> None:
    before, after = torch.tensor(outcomes).unbind(1)
    there, back = paired_gain(before, after), paired_gain(after, before)
    assert -1 <= there.low <= there.value <= there.high <= 1
    assert (-back.high, -back.value, -back.low) == pytest.approx((there.low, there.value, there.high))
    assert there.value == pytest.approx((after.double().mean() - before.double().mean()).item())


def test_intervals_refuse_what_is_not_a_count() -> None:
    for correct, total in [(3, 2), (-1, 2), (0, 0)]:
        with pytest.raises(ValueError, match=f"correct is {correct} of {total}"):
            wilson_interval(correct, total)
    with pytest.raises(ValueError, match=r"confidence is 95"):
        wilson_interval(1, 2, confidence=95)
    right = torch.ones(3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"before is \(3,\) and after \(2,\)"):
        paired_gain(right, right[:2])
    with pytest.raises(ValueError, match=r"torch.int64"):
        paired_gain(right.long(), right)
