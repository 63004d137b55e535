"""Losses against slow literal versions, and at points where their value is known."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from live_storages import LiveStorages
from torch import Tensor

from ssl_backbones import losses
from ssl_backbones.losses import aligned_info_nce, aligned_negative_count, cosine_distance, info_nce

sizes = st.integers(1, 6)
NEGATIVES = ("other_images_all_maps", "other_images_same_map", "everything")


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, sizes, st.floats(0.05, 2), st.integers(0, 99))
def test_info_nce_is_the_equation(batch: int, queue: int, dim: int, temperature: float, seed: int) -> None:
    queries, keys = normal(seed, batch, dim), normal(seed + 1, batch, dim)
    negatives = torch.nn.functional.normalize(normal(seed + 2, queue, dim), dim=1)
    found = []
    for query, key in zip(queries, keys, strict=True):
        positive = math.exp(cosine(query, key) / temperature)
        others = sum(math.exp(cosine(query, negative) / temperature) for negative in negatives)
        found.append(-math.log(positive / (positive + others)))
    assert info_nce(queries, keys, negatives, temperature).item() == pytest.approx(sum(found) / batch, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), sizes, sizes, st.integers(0, 2), st.sampled_from(NEGATIVES), st.integers(0, 99))
def test_aligned_info_nce_is_the_equation(
    images: int, maps: int, dim: int, first: int, negatives: str, seed: int
) -> None:
    queries, keys = normal(seed, images, maps, dim), normal(seed + 1, images + 3, maps, dim)
    found = []
    for i in range(images):
        for k in range(maps):
            total = 0.0
            for j in range(len(keys)):
                for m in range(maps):
                    positive = (j, m) == (first + i, k)
                    negative = {
                        "other_images_all_maps": j != first + i,
                        "other_images_same_map": j != first + i and m == k,
                        "everything": not positive,
                    }[negatives]
                    if positive or negative:
                        total += math.exp(cosine(queries[i, k], keys[j, m]) / 0.2)
            found.append(-math.log(math.exp(cosine(queries[i, k], keys[first + i, k]) / 0.2) / total))
    loss = aligned_info_nce(queries, keys, 0.2, first, negatives)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(sum(found) / len(found), rel=1e-9)


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_equal_embeddings_score_chance(negatives: str) -> None:
    ones = torch.ones(5, 3, 4, dtype=torch.float64)
    count = aligned_negative_count(5, 3, negatives)  # type: ignore[arg-type]
    loss = aligned_info_nce(ones, ones, 0.2, 0, negatives)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(math.log(1 + count))


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("images", [1, 2, 5], ids="{} at once".format)
def test_parts_of_the_aligned_table_have_the_gradient_of_the_whole(
    negatives: str, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images one by one, two by two with one left over, and all at once; and no larger table is made."""
    given_ = normal(0, 5, 3, 4).requires_grad_(), normal(1, 8, 3, 4).requires_grad_()
    whole = aligned_info_nce(*given_, 0.2, 1, negatives)  # type: ignore[arg-type]
    expected = torch.autograd.grad(whole, given_)
    entries = images * 3 * 8 * (1 if negatives == "other_images_same_map" else 3)
    monkeypatch.setattr("ssl_backbones.losses.parts.AT_ONCE", entries)
    with LiveStorages() as live:
        parted = aligned_info_nce(*given_, 0.2, 1, negatives)  # type: ignore[arg-type]
        found = torch.autograd.grad(parted, given_)
    torch.testing.assert_close(parted, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    assert max(live.made) <= 8 * max(entries, 8 * 3 * 4)  # the keys are larger than some tables


MANY = torch.nn.functional.normalize(normal(9, 500, 4), dim=1)
"""Enough unit vectors for a table of six rows with them to be the largest of all tensors."""
SOME, ROWS = torch.arange(6 * 500).view(6, 500) % 7 == 0, torch.arange(500)
TABLES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "info_nce": (lambda z: info_nce(z, z.detach(), MANY, 0.2), 1),
    "info_nce without some": (lambda z: info_nce(z, z.detach(), MANY, 0.2, SOME), 1),
    "prototype_contrast": (lambda z: losses.prototype_contrast(z, MANY, MANY.norm(dim=1), ROWS[:6], ROWS), 1),
    "region_info_nce": (lambda z: losses.region_info_nce(z[None], z[None].detach(), MANY, torch.ones(1, 6), 0.2), 1),
    "instance_softmax": (lambda z: losses.instance_softmax(z, MANY, ROWS[:6], 0.2), 2),  # and its logarithms
    "supcon": (lambda z: losses.supcon(z[:, None], ROWS[:6], 0.2, MANY[:, None], ROWS % 9), 3),  # and surprises, twice
}


@pytest.mark.parametrize(("loss", "tables"), TABLES.values(), ids=TABLES)
def test_a_table_with_all_negatives_is_divided_in_its_place(loss: Callable[[Tensor], Tensor], tables: int) -> None:
    z = normal(0, 6, 4).requires_grad_()
    with LiveStorages() as live:
        loss(z)
    assert live.made.count(8 * 6 * 500) == tables


def test_an_unknown_set_of_negatives_is_refused() -> None:
    with pytest.raises(ValueError, match="'nobody'"):
        aligned_negative_count(5, 3, "nobody")  # type: ignore[arg-type]


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "accuracy": (normal(0, 4, 3), torch.tensor([0, 1, 2, 0])),
    "aligned_info_nce": (normal(0, 2, 3, 4), normal(1, 3, 3, 4), 0.2, 1, "everything"),
    "aligned_negative_count": (3, 2, "everything"),
    "aligned_nt_xent": (normal(0, 2, 3, 4), normal(1, 2, 3, 4), 0.2, None, 0, "everything"),
    "all_windows": (normal(0, 2, 3, 4, 5), 3),
    "barlow_twins": (normal(0, 4, 3), normal(1, 4, 3), 0.1),
    "batch_info_nce": (normal(0, 2, 3), normal(1, 4, 3), 0.2, 2),
    "correspondence": (normal(0, 2, 3, 4), normal(1, 2, 5, 4)),
    "cosine_distance": (normal(0, 4, 3), normal(1, 4, 3)),
    "cross_entropy": (normal(0, 4, 3), torch.tensor([0, 1, 2, 0])),
    "dense_info_nce": (
        normal(0, 2, 3, 4),
        normal(1, 2, 2, 4),
        torch.tensor([[0, 1, 1], [1, 0, 1]]),
        normal(2, 5, 4),
        0.2,
    ),
    "discriminator_loss": (normal(0, 4), normal(1, 4)),
    "embedding_distances": (normal(0, 2, 3, 4), normal(1, 2, 5, 4)),
    "generator_loss": (normal(0, 4),),
    "info_nce": (normal(0, 4, 3), normal(1, 4, 3), normal(2, 5, 3), 0.2),
    "instance_exponentials": (normal(0, 2, 3), normal(1, 4, 3), torch.tensor([[0, 3], [2, 2]]), 0.2),
    "instance_nce": (normal(0, 2, 3).exp(), torch.tensor(2.0, dtype=torch.float64), 4),
    "instance_softmax": (normal(0, 2, 3), normal(1, 4, 3), torch.tensor([3, 0]), 0.2),
    "map_distance": (normal(0, 4, 3, 2, 2), normal(1, 4, 3, 2, 2)),
    "multi_positive_info_nce": (normal(0, 4, 3), normal(1, 4, 2, 3), normal(2, 5, 3), 0.2),
    "nearby": (normal(0, 2, 4), normal(1, 2, 4), (2, 3), 0.7),
    "nt_xent": (normal(0, 4, 3), normal(1, 4, 3), 0.2),
    "pixel_consistency": (normal(0, 2, 3, 4), normal(1, 2, 5, 4), normal(2, 2, 3, 5) > 0),
    "place_distances": (normal(0, 2, 4), normal(1, 2, 4), (2, 3)),
    "propagated": (normal(0, 2, 3, 4), normal(1, 2, 3, 4), 2.0),
    "prototype_contrast": (
        normal(0, 2, 3),
        normal(1, 4, 3),
        normal(2, 4).exp(),
        torch.tensor([3, 0]),
        torch.tensor([2, 3]),
    ),
    "region_info_nce": (normal(0, 2, 3, 4), normal(1, 2, 3, 4), normal(2, 5, 4), torch.ones(2, 3) > 0, 0.2),
    "region_means": (normal(0, 2, 3, 4, 5), torch.tensor([[0.1, 0.2, 0.7, 0.9], [0.0, 0.0, 1.0, 0.3]])),
    "sinkhorn": (normal(0, 4, 3), 0.5, 2),
    "swapped_prediction": (normal(0, 3, 2, 4), normal(1, 2, 2, 4).softmax(2), 0.2),
    "supcon": (normal(0, 3, 2, 4), torch.tensor([0, 1, 0]), 0.2),
    "vicreg": (normal(0, 4, 3), normal(1, 4, 3), 20.0, 10.0, 2.0),
}


@pytest.mark.parametrize("name", [name for name in losses.__all__ if inspect.isfunction(getattr(losses, name))])
def test_documented_names_are_keywords(name: str) -> None:
    loss = getattr(losses, name)
    named = dict(zip(inspect.signature(loss).parameters, ARGUMENTS[name], strict=False))
    assert torch.equal(torch.as_tensor(loss(**named)), torch.as_tensor(loss(*ARGUMENTS[name])))


def test_what_is_excluded_counts_for_nothing() -> None:
    queries, keys, negatives = normal(0, 3, 4), normal(1, 3, 4), torch.nn.functional.normalize(normal(2, 5, 4), dim=1)
    excluded = torch.zeros(3, 5, dtype=torch.bool)
    excluded[:, 2] = True
    left = negatives[[0, 1, 3, 4]]
    masked = info_nce(queries, keys, negatives, 0.2, excluded)
    torch.testing.assert_close(masked, info_nce(queries, keys, left, 0.2))


def test_the_positive_is_not_taken_from_the_queue() -> None:
    """A queue that already holds the current keys gives another loss: the mistake must show."""
    queries, keys = normal(0, 4, 8), torch.nn.functional.normalize(normal(1, 4, 8), dim=1)
    queue = torch.nn.functional.normalize(normal(2, 6, 8), dim=1)
    assert info_nce(queries, keys, queue, 0.2) < info_nce(queries, keys, torch.cat([queue, keys]), 0.2)


@settings(max_examples=40, deadline=None)
@given(st.lists(sizes, min_size=1, max_size=2), sizes, st.integers(0, 99))
def test_cosine_distance_is_the_squared_distance_of_unit_vectors(rows: list[int], dim: int, seed: int) -> None:
    a, b = normal(seed, *rows, dim), normal(seed + 1, *rows, dim)
    squared = (a / a.norm(dim=-1, keepdim=True) - b / b.norm(dim=-1, keepdim=True)).square().sum(-1)
    assert cosine_distance(a, b).item() == pytest.approx(squared.mean().item(), abs=1e-12)


def test_targets_get_no_gradient() -> None:
    predictions, targets = normal(0, 3, 4).requires_grad_(), normal(1, 3, 4).requires_grad_()
    cosine_distance(predictions, targets).backward()
    assert predictions.grad is not None
    assert targets.grad is None


@pytest.mark.parametrize("loss", [info_nce, aligned_info_nce, cosine_distance], ids=lambda loss: loss.__name__)
def test_autocast_changes_nothing(loss: Callable[..., Tensor]) -> None:
    """Embeddings may come in half precision; what is made of them does not lose more digits."""
    a, b = (normal(seed, 4, 3, 16).bfloat16() for seed in (0, 1))
    rest = {"info_nce": (normal(2, 8, 16).bfloat16(), 0.2), "aligned_info_nce": (0.2,), "cosine_distance": ()}
    if loss is info_nce:
        a, b = a[:, 0], b[:, 0]
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = loss(a, b, *rest[loss.__name__])
    exact = loss(*(value.double() if isinstance(value, Tensor) else value for value in (a, b, *rest[loss.__name__])))
    assert under_autocast.dtype == torch.float32
    assert under_autocast.item() == pytest.approx(exact.item(), rel=1e-5)
