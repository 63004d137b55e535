"""VICRegL: matches of positions against slow literal versions, and the parts of its loss."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_methods import batch_of, small_method
from test_joint_embedding_methods import widths
from test_rivals import normal

from ssl_backbones.losses import embedding_distances, place_distances, vicreg
from ssl_backbones.losses.dense import matched_positions
from ssl_backbones.methods import VICRegLConfig
from ssl_backbones.recipes import get
from ssl_backbones.weightless import weightless

sizes = st.integers(1, 5)
seeds = st.integers(0, 99)


@settings(max_examples=20, deadline=None)
@given(sizes, sizes, sizes, sizes, st.integers(1, 7), seeds)
def test_matches_are_the_nearest_pairs(batch: int, p: int, q: int, dim: int, count: int, seed: int) -> None:
    first, second, distances = (
        normal(seed, batch, p, dim),
        normal(seed + 1, batch, q, dim),
        normal(seed + 2, batch, p, q),
    )
    one, other = matched_positions(first, second, distances, count)
    assert one.shape == other.shape == (batch, min(count, p), dim)
    for b in range(batch):
        rows = sorted(range(p), key=lambda i: min(distances[b, i].tolist()))[:count]
        partners = [min(range(q), key=lambda j: float(distances[b, i, j])) for i in rows]
        assert torch.equal(one[b], first[b, rows])
        assert torch.equal(other[b], second[b, partners])


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 5), sizes, sizes, seeds)
def test_matched_positions_vary_each_over_the_images(batch: int, matches: int, dim: int, seed: int) -> None:
    first, second = normal(seed, batch, matches, dim), normal(seed + 1, batch, matches, dim)
    each = [vicreg(first[:, at], second[:, at]).item() for at in range(matches)]
    assert vicreg(first, second).item() == pytest.approx(sum(each) / matches, rel=1e-9)


def test_a_mirrored_view_is_matched_at_the_same_places() -> None:
    """Against the very same crop: each position with its own, found from the other end of the row."""
    corners = torch.tensor([[4.0, 10.0, 50.0, 70.0]])
    distances = place_distances(corners, corners[:, [2, 1, 0, 3]], (2, 3))
    assert distances.argmin(2).tolist() == [[2, 1, 0, 5, 4, 3]]
    assert distances.min(2).values.max() < 1e-5


def test_distances_of_embeddings_are_those_of_their_differences() -> None:
    first, second = normal(0, 2, 3, 4), normal(1, 2, 5, 4)
    expected = (first[:, :, None] - second[:, None]).norm(dim=3)
    torch.testing.assert_close(embedding_distances(first, second), expected)


def test_the_loss_is_its_parts() -> None:
    """And what it weighs: with all the weight on whole views, positions learn nothing."""
    method: Any = small_method(VICRegLConfig, global_weight=0.75).double()
    batch = batch_of(method, dtype=torch.float64)
    found = method(batch)
    local = found["place_loss"] + found["feature_loss"]
    assert found["loss"].item() == pytest.approx(0.75 * found["pooled_loss"].item() + 0.25 * local.item(), rel=1e-12)
    alone: Any = small_method(VICRegLConfig, global_weight=1.0).double()
    z1, z2 = (alone.embed(view)[0] for view in batch.views)
    assert alone(batch)["loss"].item() == pytest.approx(vicreg(z1, z2).item(), rel=1e-12)
    alone(batch)["loss"].backward()
    assert all(not weight.grad.any() for weight in alone.local_projector.parameters())


@pytest.mark.parametrize("tag", ["300ep", "300ep_alpha75", "100ep"])
def test_the_rows_of_the_authors_weigh_the_terms_as_their_code_does(tag: str) -> None:
    """25, 25 and 1, of the distance and of the means of variance and covariance over the two views."""
    config, z1, z2 = get(f"resnet50_vicregl.in1k_{tag}").method, normal(0, 6, 4), normal(1, 6, 4)
    assert isinstance(config, VICRegLConfig)
    means = []
    for rows in (z1, z2):
        spread, products = (1 - (rows.var(0) + 1e-4).sqrt()).relu().mean(), rows.T.cov()
        means.append(25 * spread + (products.square().sum() - products.diagonal().square().sum()) / 4)
    expected = 25 * (z1 - z2).square().mean() + sum(means) / 2
    found = vicreg(z1, z2, config.invariance, config.variance, config.covariance)
    torch.testing.assert_close(found, expected)


def test_features_match_at_least_as_near_as_places_do() -> None:
    method: Any = small_method(VICRegLConfig)
    batch = batch_of(method)
    (_, first, grid), (_, second, _) = (method.embed(view) for view in batch.views)
    corners = batch.geometry.corners() * (batch.geometry.sizes - 1).repeat(1, 2)
    apart = [
        (one - other).norm(dim=2).mean().item()
        for distances in (embedding_distances(first, second), place_distances(*corners.unbind(), grid))
        for one, other in [matched_positions(first, second, distances, 5)]
    ]
    assert apart[0] < apart[1]


def test_the_heads_are_the_papers() -> None:
    with weightless():
        method: Any = VICRegLConfig().build(timm.create_model("resnet50", num_classes=0))
    assert widths(method.projector) == [2048, 8192, 8192, 8192]
    assert widths(method.local_projector) == [2048, 512, 512, 512]


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"matches": 0}, "matches must be positive"),
        ({"global_weight": 1.5}, "global_weight is a share"),
        ({"grid": -1}, "grid is -1, but must be at least 0"),
        ({"local_dim": 0}, "local_dim must be positive"),
    ],
    ids=str,
)
def test_a_wrong_choice_is_refused_in_words(choices: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        small_method(VICRegLConfig, **choices)
