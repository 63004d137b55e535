"""NT-Xent, Barlow Twins and VICReg against slow literal versions, and at points where their value is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssl_backbones.losses import (
    aligned_negative_count,
    aligned_nt_xent,
    barlow_twins,
    cosine_distance,
    nt_xent,
    vicreg,
)
from ssl_backbones.methods import VICRegConfig
from ssl_backbones.recipes.vicreg import RECIPES as VICREG_RECIPES

sizes = st.integers(1, 5)
seeds = st.integers(0, 99)
NEGATIVES = ("other_images_all_maps", "other_images_same_map", "everything")


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


@settings(max_examples=30, deadline=None)
@given(sizes, sizes, st.floats(0.05, 2), seeds)
def test_nt_xent_is_the_equation(batch: int, dim: int, temperature: float, seed: int) -> None:
    """Eq. 1 over 2N examples, of which 2k - 1 and 2k are a pair, as the paper's algorithm 1 numbers them."""
    first, second = normal(seed, batch, dim), normal(seed + 1, batch, dim)
    examples = torch.stack([first, second], 1).flatten(0, 1)
    losses = []
    for i in range(2 * batch):
        pair = i + 1 if i % 2 == 0 else i - 1
        similar = [math.exp(cosine(examples[i], other) / temperature) for other in examples]
        losses.append(-math.log(similar[pair] / sum(value for k, value in enumerate(similar) if k != i)))
    assert nt_xent(first, second, temperature).item() == pytest.approx(sum(losses) / len(losses), rel=1e-9, abs=1e-12)


def aligned_literally(first: Tensor, second: Tensor, negatives: str, images: range) -> float:
    """NT-Xent at temperature 0.2 of some images' embeddings (B, n, D) among all."""
    views = (first, second)
    losses = []
    for i in images:
        for v in range(2):
            for k in range(first.shape[1]):
                total = 0.0
                for j in range(len(first)):
                    for w in range(2):
                        for m in range(first.shape[1]):
                            positive = (j, m) == (i, k) and w != v
                            negative = {
                                "other_images_all_maps": j != i,
                                "other_images_same_map": j != i and m == k,
                                "everything": (j, w, m) != (i, v, k),
                            }[negatives]
                            if positive or negative:
                                total += math.exp(cosine(views[v][i, k], views[w][j, m]) / 0.2)
                losses.append(-math.log(math.exp(cosine(first[i, k], second[i, k]) / 0.2) / total))
    return sum(losses) / len(losses)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), sizes, st.sampled_from(NEGATIVES), seeds)
def test_aligned_nt_xent_is_its_definition(images: int, maps: int, dim: int, negatives: str, seed: int) -> None:
    first, second = normal(seed, images, maps, dim), normal(seed + 1, images, maps, dim)
    loss = aligned_nt_xent(first, second, 0.2, negatives=negatives)
    expected = aligned_literally(first, second, negatives, range(images))
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_a_part_of_the_batch_meets_the_whole(negatives: str) -> None:
    first, second = normal(0, 5, 2, 4), normal(1, 5, 2, 4)
    everyone = torch.stack([first, second], 1)
    part = aligned_nt_xent(first[2:4], second[2:4], 0.2, everyone, position=2, negatives=negatives)
    assert part.item() == pytest.approx(aligned_literally(first, second, negatives, range(2, 4)), rel=1e-9)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("entries", [1, 5 * 2 * 3 * 20, 2**26])
def test_parts_of_the_table_have_the_gradient_of_the_whole(
    negatives: str, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images one by one, two by two with one left over, and all at once; and no larger table is made."""
    first, second = normal(0, 5, 2, 4).requires_grad_(), normal(1, 5, 2, 4).requires_grad_()
    everyone = torch.stack([normal(2, 8, 2, 4), normal(3, 8, 2, 4)], 1)
    everyone[1:6] = torch.stack([first, second], 1)
    whole = aligned_nt_xent(first, second, 0.2, everyone, 1, negatives)
    expected = torch.autograd.grad(whole, (first, second), retain_graph=True)
    monkeypatch.setattr("ssl_backbones.losses.parts.AT_ONCE", entries)
    parted = aligned_nt_xent(first, second, 0.2, everyone, 1, negatives)
    found = torch.autograd.grad(parted, (first, second))
    torch.testing.assert_close(parted, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_equal_embeddings_score_chance(negatives: str) -> None:
    ones = torch.ones(5, 3, 4, dtype=torch.float64)
    assert nt_xent(ones[:, 0], ones[:, 0], 0.1).item() == pytest.approx(math.log(2 * 5 - 1))
    count = 2 * aligned_negative_count(5, 3, negatives)  # type: ignore[arg-type]
    assert aligned_nt_xent(ones, ones, 0.1, negatives=negatives).item() == pytest.approx(math.log(1 + count))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), sizes, st.floats(0.001, 1), seeds)
def test_barlow_twins_is_the_equation(batch: int, dim: int, off_diagonal: float, seed: int) -> None:
    first, second = normal(seed, batch, dim) + 3, normal(seed + 1, batch, dim) - 2
    loss = 0.0
    for i in range(dim):
        for j in range(dim):
            a, b = first[:, i] - first[:, i].mean(), second[:, j] - second[:, j].mean()
            correlation = float((a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt()))
            loss += (1 - correlation) ** 2 if i == j else off_diagonal * correlation**2
    assert barlow_twins(first, second, off_diagonal).item() == pytest.approx(loss, rel=1e-9, abs=1e-12)


def test_barlow_twins_of_independent_columns_is_nought() -> None:
    """Any scale and shift of columns that correlate with themselves alone."""
    columns = torch.linalg.qr(torch.cat([torch.ones(6, 1, dtype=torch.float64), normal(0, 6, 3)], 1))[0][:, 1:]
    assert barlow_twins(columns, 5 * columns + 2).item() == pytest.approx(0, abs=1e-12)
    assert barlow_twins(columns, -columns).item() == pytest.approx(12)


def test_a_constant_column_neither_divides_by_zero_nor_loses_its_gradient() -> None:
    """In single precision: a network whose embeddings have collapsed still descends on a finite loss."""
    first, second = torch.ones(4, 3, requires_grad=True), torch.ones(4, 3)
    for loss in (barlow_twins(first, second), vicreg(first, second)):
        loss.backward()
        assert torch.isfinite(loss)
    assert first.grad is not None
    assert torch.isfinite(first.grad).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), sizes, st.lists(st.floats(0.1, 30), min_size=3, max_size=3), seeds)
def test_vicreg_is_the_equation(batch: int, dim: int, weights: list[float], seed: int) -> None:
    views = [0.8 * normal(seed + view, batch, dim) + view for view in range(2)]
    spread = mixed = 0.0
    for rows in views:
        mean = sum(rows) / batch
        matrix = sum(torch.outer(row - mean, row - mean) for row in rows) / (batch - 1)
        assert isinstance(matrix, Tensor)
        for i in range(dim):
            spread += max(0.0, 1 - math.sqrt(float(matrix[i, i]) + 1e-4)) / dim
            mixed += sum(float(matrix[i, j]) ** 2 for j in range(dim) if j != i) / dim
    distance = sum(float((a - b).square().sum()) for a, b in zip(*views, strict=True)) / (batch * dim)
    expected = weights[0] * distance + weights[1] * spread + weights[2] * mixed
    assert vicreg(*views, *weights).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_vicreg_with_half_the_variance_weight_is_the_authors_code(seed: int) -> None:
    """Their variance term is the mean over the two views, where eq. 6 has the sum."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(8, 5, generator=generator, dtype=torch.float64) / 3 for _ in range(2))
    total = 25 * sum((a - b) ** 2 for a, b in zip(first.flatten(), second.flatten(), strict=True)) / first.numel()
    for rows in (first, second):
        centred = rows - rows.mean(0)
        short = [max(0.0, 1 - math.sqrt(column.var().item() + 1e-4)) for column in rows.T]
        total += 25 * sum(short) / len(short) / 2
        matrix = (centred.T @ centred / (len(rows) - 1)).tolist()
        total += sum(matrix[i][j] ** 2 for i in range(5) for j in range(5) if i != j) / 5
    (recipe,) = (recipe for recipe in VICREG_RECIPES if recipe.epochs == 100)
    config = recipe.method
    assert isinstance(config, VICRegConfig)
    loss = vicreg(first, second, config.invariance, config.variance, config.covariance)
    assert loss.item() == pytest.approx(float(total), rel=1e-12)
    assert vicreg(first, second).item() > float(total)


def test_the_papers_weights_are_the_defaults() -> None:
    first, second = normal(0, 6, 4), normal(1, 6, 4)
    assert torch.equal(vicreg(first, second), vicreg(first, second, 25.0, 25.0, 1.0))
    assert torch.equal(barlow_twins(first, second), barlow_twins(first, second, 0.005))


@settings(max_examples=20, deadline=None)
@given(sizes, sizes, seeds)
def test_simsiams_loss_is_the_cosine_distance_but_for_a_constant(batch: int, dim: int, seed: int) -> None:
    predictions, targets = normal(seed, batch, dim), normal(seed + 1, batch, dim)
    negative = -sum(cosine(p, z) for p, z in zip(predictions, targets, strict=True)) / batch
    assert cosine_distance(predictions, targets).item() / 2 == pytest.approx(1 + negative, abs=1e-12)


LOSSES: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda a, b: nt_xent(a, b, 0.1),
    lambda a, b: aligned_nt_xent(a.view(4, 2, 8), b.view(4, 2, 8), 0.1),
    barlow_twins,
    vicreg,
]


@pytest.mark.parametrize("loss", LOSSES, ids=("nt_xent", "aligned_nt_xent", "barlow_twins", "vicreg"))
def test_autocast_changes_nothing(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    a, b = (normal(seed, 8, 8).bfloat16() for seed in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = loss(a, b)
    assert under_autocast.dtype == torch.float32
    assert under_autocast.item() == pytest.approx(loss(a.double(), b.double()).item(), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES, ids=("nt_xent", "aligned_nt_xent", "barlow_twins", "vicreg"))
def test_views_change_places(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    first, second = normal(0, 8, 8), normal(1, 8, 8)
    assert loss(first, second).item() == pytest.approx(loss(second, first).item(), rel=1e-12)
