"""DeepCluster: known clusters are found, alike in all processes, and a run that goes on has them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import after, asked_to_stop, elsewhere, image_folder, outcome, run, state, tiny
from small_methods import Drawn, batch_of, small_config, small_method
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from two_processes import run_two_processes

from ssl_backbones import k_means as k_means_module
from ssl_backbones.data import ImageSourceError, Request
from ssl_backbones.k_means import (
    assigned,
    centred,
    k_means,
    lloyd,
    pca_whiten,
    plus_plus,
    scattered,
    squares_of,
    sums_of_clusters,
)
from ssl_backbones.methods import DeepClusterConfig
from ssl_backbones.methods.deepcluster import cluster_weights
from ssl_backbones.shares import own_places


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blobs(clusters: int, each: int, dim: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points around centres far from one another, in a mixed order; and whose each one is."""
    centres = 10 * normal(seed, clusters, dim)
    truth = torch.arange(clusters).repeat(each)
    return centres[truth] + 0.1 * normal(seed + 1, len(truth), dim), truth


def same_partition(first: Tensor, second: Tensor) -> bool:
    """True if two labellings differ in names only."""
    pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    return len(pairs) == len(set(first.tolist())) == len(set(second.tolist()))


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 8), st.integers(2, 12), st.integers(0, 99))
def test_known_clusters_are_found(clusters: int, each: int, seed: int) -> None:
    points, truth = blobs(clusters, each, seed=seed)
    found = k_means(points, clusters, torch.Generator().manual_seed(seed), restarts=10)
    assert same_partition(found, truth)


def test_many_clusters_begin_with_points_that_differ() -> None:
    points = normal(0, 300, 8)
    centres = scattered(points, 300, torch.Generator().manual_seed(0), 300, slice(0, 300))
    assert len(centres.unique(dim=0)) == 300
    assert torch.equal(centres.sort(0).values, points.sort(0).values)


def test_the_same_seed_gives_the_same_clusters() -> None:
    points = normal(0, 300, 8)
    first, again, other = (k_means(points, 10, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(6, 40), st.integers(1, 4), st.integers(0, 99))
def test_each_point_is_with_its_nearest_centre(clusters: int, count: int, dim: int, seed: int) -> None:
    points, centres = normal(seed, count, dim).double(), normal(seed + 1, clusters, dim).double()
    labels, distances = assigned(points, centres, squares_of(points, len(centres)))
    for point, label, distance in zip(points, labels.tolist(), distances.tolist(), strict=True):
        literal = [float((point - centre).square().sum()) for centre in centres]
        assert literal[label] == pytest.approx(min(literal))
        assert distance == pytest.approx(min(literal), abs=1e-9)
    means = centred(points, labels, distances, clusters)
    for cluster in set(labels.tolist()):
        torch.testing.assert_close(means[cluster], points[labels == cluster].mean(0))


def test_parts_of_the_table_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    points = normal(0, 50, 4).double()
    whole = k_means(points, 5, torch.Generator().manual_seed(0))
    monkeypatch.setattr("ssl_backbones.k_means.ENTRIES", 15)
    assert torch.equal(k_means(points, 5, torch.Generator().manual_seed(0)), whole)


def literal(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """The clusters of points (N, D) as `k_means` finds them, one cluster at a time, in sums of single precision."""
    found = []
    for _ in range(5):
        centres = plus_plus(points, clusters, generator, len(points), slice(None))
        labels = torch.cdist(points, centres).argmin(1)
        for _ in range(30):
            far = (points - centres[labels]).norm(dim=1).argsort(descending=True, stable=True).tolist()
            members = [points[labels == cluster] for cluster in range(clusters)]
            centres = torch.stack([own.mean(0) if len(own) else points[far.pop(0)] for own in members])
            moved = torch.cdist(points, centres).argmin(1)
            if torch.equal(moved, labels):
                break
            labels = moved
        found.append((float((points - centres[labels]).square().sum()), len(found), labels))
    return min(found)[2]


def white(count: int, dim: int, seed: int = 0) -> Tensor:
    """Unit vectors (count, dim) as they are clustered."""
    return normalize(pca_whiten(normal(seed, count, 64), dim), dim=1)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_found_is_what_one_cluster_at_a_time_finds(seed: int) -> None:
    points = white(240, 16, seed)
    expected = literal(points, 12, torch.Generator().manual_seed(seed))
    assert torch.equal(k_means(points, 12, torch.Generator().manual_seed(seed)), expected)


CASES = [(61, 4, 6, 30), (20, 8, 9, 7), (7, 3, 7, 7), (20, 8, 5, 0)]
"""Points, their dimensions, clusters, and the points of the first of two processes."""


def shared_clusters(rank: int, by_distance: int) -> list[Tensor]:
    found = []
    k_means_module.DRAWN_BY_DISTANCE = by_distance
    for count, dim, clusters, first in CASES:
        own = white(count, dim)[[slice(first), slice(first, None)][rank]]
        found.append(k_means(own, clusters, torch.Generator().manual_seed(2), restarts=2))
        features = normal(3, count, 64)[[slice(first), slice(first, None)][rank]]
        found.append(pca_whiten(features, dim))
    return found


@pytest.mark.parametrize("by_distance", [0, 1024])
def test_processes_that_share_the_points_find_what_one_finds(by_distance: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many points each has, also none; with clusters that lose their points; from either kind of beginning."""
    monkeypatch.setattr(k_means_module, "DRAWN_BY_DISTANCE", by_distance)
    first, second = run_two_processes(shared_clusters, by_distance)
    for (count, dim, clusters, _), one, other, *whitened in zip(
        CASES, first[::2], second[::2], first[1::2], second[1::2], strict=True
    ):
        alone = k_means(white(count, dim), clusters, torch.Generator().manual_seed(2), restarts=2)
        assert torch.equal(torch.cat([one, other]), alone), (count, clusters)
        torch.testing.assert_close(torch.cat(whitened), pca_whiten(normal(3, count, 64), dim))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 99), st.floats(1e-6, 1e6))
def test_sums_are_exact_in_any_order(count: int, clusters: int, seed: int, size: float) -> None:
    points, order = size * normal(seed, count, 3), torch.randperm(count)
    labels = torch.randint(clusters, (count,))
    counts = torch.bincount(labels, minlength=clusters)
    sums = sums_of_clusters(points, labels, counts)
    assert torch.equal(sums_of_clusters(points[order], labels[order], counts), sums)
    for cluster in range(clusters):
        exact = [math.fsum(column) for column in points[labels == cluster].double().T.tolist()]
        assert sums[cluster].tolist() == pytest.approx(exact, rel=1e-7, abs=1e-9 * size)


def test_memory_is_bounded_however_many_parts_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor of a round is larger than the table that is allowed, the points, or the centres."""
    points, largest = normal(0, 500, 4), []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **kwargs or {})
            largest.extend(part.numel() for part in tree_leaves(result) if isinstance(part, Tensor))
            return result

    monkeypatch.setattr("ssl_backbones.k_means.ENTRIES", 2500)
    with Sizes():
        k_means(points, 100, torch.Generator().manual_seed(0), restarts=1, iterations=3)
    assert max(largest) <= 2500


def test_rounds_bring_the_points_nearer() -> None:
    points = normal(0, 200, 4)
    beginning = plus_plus(points, 8, torch.Generator().manual_seed(0), 200, slice(None))
    sums = [float(lloyd(points, beginning, rounds)[1].sum()) for rounds in range(6)]
    assert sums == sorted(sums, reverse=True)
    assert sums[-1] < sums[0]


def test_an_empty_cluster_takes_the_farthest_point() -> None:
    points = torch.tensor([[0.0], [1.0], [10.0]])
    labels, distances = assigned(points, torch.tensor([[0.5], [100.0]]), squares_of(points, 2))
    assert centred(points, labels, distances, 2)[1].item() == 10


def test_beginnings_are_points_far_apart() -> None:
    points, truth = blobs(6, 20)
    for seed in range(10):
        centres = plus_plus(points, 6, torch.Generator().manual_seed(seed), len(points), slice(None))
        chosen = [(points == centre).all(1).nonzero().item() for centre in centres]
        assert len(set(truth[chosen].tolist())) >= 5


def test_points_that_are_all_alike_are_clustered_too() -> None:
    assert k_means(torch.ones(6, 3), 4, torch.Generator().manual_seed(0)).shape == (6,)


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="3 points cannot fill 4 clusters: ask for at most 3"):
        k_means(torch.zeros(3, 2), 4, torch.Generator())


@settings(max_examples=20, deadline=None)
@given(st.integers(20, 60), st.integers(1, 8), st.integers(0, 99), st.data())
def test_whitened_features_vary_alike_and_apart(count: int, dim: int, seed: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, dim))
    features = (normal(seed, count, dim) @ normal(seed + 1, dim, dim)).double() + 5
    white = pca_whiten(features, kept)
    assert white.shape == (count, kept)
    torch.testing.assert_close(white.T @ white / count, torch.eye(kept, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(white.mean(0), torch.zeros(kept, dtype=torch.float64), rtol=0, atol=1e-6)


def test_the_components_kept_are_those_that_vary_most() -> None:
    features = normal(0, 200, 3) * torch.tensor([0.1, 10.0, 1.0])
    first, second = pca_whiten(features, 2).T
    assert abs(np.corrcoef(first, features[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(second, features[:, 2])[0, 1]) > 0.99


def test_what_does_not_vary_stays_out() -> None:
    features = torch.cat([normal(0, 50, 2), torch.full((50, 2), 3.0)], dim=1)
    white = pca_whiten(features, 4)
    assert torch.isfinite(white).all()
    torch.testing.assert_close(white[:, 2:], torch.zeros(50, 2))


# The method


def test_an_epoch_begins_with_clusters_and_a_fresh_layer() -> None:
    points, truth = blobs(4, 6, dim=64)
    method = small_method(DeepClusterConfig, clusters=4, components=3)
    method.dataset(Drawn(24), 16, 0)
    before = method.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    method.on_epoch_start(lambda: points)
    moved = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"pseudo_labels", "head.3.weight", "head.3.bias"}  # and the weights of equal clusters stay 1
    assert same_partition(method.pseudo_labels, truth)
    assert method.last_layer.weight.std().item() == pytest.approx(0.01, rel=0.3)
    assert not method.last_layer.bias.any()


def test_clusters_are_of_whitened_unit_features() -> None:
    method = small_method(DeepClusterConfig, clusters=3)
    features = normal(0, 40, 64)
    points = normalize(pca_whiten(features, 64), dim=1)
    expected = k_means(points, 3, torch.Generator().manual_seed(5), method.config.restarts, method.config.iterations)
    assert torch.equal(method.clusters(features, seed=5), expected)


def test_the_loss_asks_for_the_cluster_of_each_row() -> None:
    method = small_method(DeepClusterConfig).double().eval()
    images, rows = batch_of(method, dtype=torch.float64)
    assert rows.tolist() == list(range(8))
    method.pseudo_labels.copy_(torch.tensor([3, 0, 1, 2, 3, 3, 0, 1]))
    method.weights.copy_(torch.tensor([1.0, 2.0, 0.5, 0.25]))
    order = torch.tensor([5, 2, 7])
    total = weight = 0.0
    for row in order.tolist():
        label = int(method.pseudo_labels[row])
        logits = method.head(method.backbone(images[row][None]))[0].tolist()
        surprise = -math.log(math.exp(logits[label]) / sum(map(math.exp, logits)))
        total += float(method.weights[label]) * surprise
        weight += float(method.weights[label])
    assert method((images[order], rows[order]))["loss"].item() == pytest.approx(total / weight, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_clusters_weigh_alike_or_hardly_at_all(labels: list[int]) -> None:
    inverse = cluster_weights(torch.tensor(labels), 5, "inverse")
    shares = [inverse[label].item() * labels.count(label) for label in set(labels)]
    assert shares == pytest.approx([len(labels) / 5] * len(shares), rel=1e-5)
    complement = cluster_weights(torch.tensor(labels), 5, "complement")
    for label in range(5):
        share = 1 - labels.count(label) / len(labels)
        assert complement[label].item() == pytest.approx(max(share, 1 / len(labels)))


def test_fewer_images_than_clusters_are_refused_before_training() -> None:
    with pytest.raises(ImageSourceError, match=r"3 images cannot fill 4 clusters: .* at most 3, or add images"):
        small_method(DeepClusterConfig).dataset(Drawn(3), 16, 0)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"clusters": 1}, "clusters must be at least 2, not 1"),
        ({"components": 65}, "components=65 must be 1 to 64"),
        ({"components": -1}, "components=-1"),
        ({"weighting": "none"}, "weighting must be one of inverse, complement"),
        ({"restarts": 0}, "restarts"),
        ({"iterations": 0}, "iterations"),
    ],
    ids=str,
)
def test_a_wrong_choice_is_refused_in_words(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small_method(DeepClusterConfig, **choices)


def test_all_features_are_kept_below_512_and_half_from_there_on() -> None:
    assert small_method(DeepClusterConfig).components == 64
    from ssl_backbones import create_model

    wide = create_model("resnet18", num_classes=0)
    assert small_config(DeepClusterConfig).build(wide).components == 256  # type: ignore[attr-defined]


def on_a_rank(rank: int) -> list[Tensor]:
    method = small_method(DeepClusterConfig, seed=1)
    method.dataset(Drawn(41), 16, 0)
    torch.manual_seed(9)
    method.on_epoch_start(lambda: normal(0, 41, 64)[own_places(41)])
    return [method.pseudo_labels, method.weights, method.last_layer.weight]


def test_two_processes_have_the_same_labels() -> None:
    first, second = run_two_processes(on_a_rank)
    for one, other, alone in zip(first, second, on_a_rank(0), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, alone)


@pytest.mark.parametrize("step", [2, 3], ids=["within an epoch", "between two"])
def test_a_run_that_was_stopped_has_its_clusters(step: int, tmp_path: Any) -> None:
    recipe = tiny(DeepClusterConfig, image_folder(tmp_path / "photos"), tmp_path / "whole")
    whole = run(recipe).path
    labels = state(whole)["method/pseudo_labels"]
    assert len(labels.unique()) > 1
    cut = elsewhere(recipe, tmp_path / "cut")
    with after(step, asked_to_stop), pytest.raises(SystemExit):
        run(cut)
    assert outcome(run(cut).path)["state"] == outcome(whole)["state"]


def test_a_batch_says_which_rows_it_holds() -> None:
    dataset = small_method(DeepClusterConfig).dataset(Drawn(12), 16, 0)
    _, rows = dataset[Request(3, np.array([7, 2, 11]))].content
    assert rows.tolist() == [7, 2, 11]
