"""PCL: slow literal versions of its loss and concentrations, its clusters before an epoch, and its two versions."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_methods import Drawn, batch_of, small_method
from test_deepcluster import blobs, same_partition
from test_joint_embedding_methods import widths
from test_rivals import normal
from torch import nn
from torch.nn.functional import normalize

from ssl_backbones.data import ImageSourceError
from ssl_backbones.losses import prototype_contrast
from ssl_backbones.methods import PCLConfig
from ssl_backbones.models.clustering import Clustering, concentration
from ssl_backbones.recipes import get
from ssl_backbones.train.cost import size_of_state
from ssl_backbones.weightless import weightless

sizes = st.integers(1, 5)
seeds = st.integers(0, 99)


@settings(max_examples=30, deadline=None)
@given(sizes, st.integers(3, 8), sizes, st.data(), seeds)
def test_the_loss_is_the_equation(batch: int, count: int, dim: int, data: st.DataObject, seed: int) -> None:
    v, prototypes = normal(seed, batch, dim), normalize(normal(seed + 1, count, dim), dim=1)
    phi, generator = normal(seed + 2, count).abs() + 0.1, torch.Generator().manual_seed(seed)
    own = torch.randint(count, (batch,), generator=generator)
    r = data.draw(st.integers(1, count - 1))
    drawn = torch.randperm(count, generator=generator)[: 1 + r]
    losses = []
    for i in range(batch):
        others = [j for j in drawn.tolist() if j != own[i]][:r]
        assert len(others) == r
        unit = v[i] / v[i].norm()
        alike = [math.exp(float(unit @ prototypes[j]) / float(phi[j])) for j in [int(own[i]), *others]]
        losses.append(-math.log(alike[0] / sum(alike)))
    found = prototype_contrast(v, prototypes, phi, own, drawn).item()
    assert found == pytest.approx(sum(losses) / batch, rel=1e-9, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 9)), min_size=1, max_size=12))
def test_concentrations_are_the_authors(clusters: list[tuple[float, int]]) -> None:
    """Their code, cluster by cluster, but for clusters whose images are all alike."""
    phi = [spread / math.log(size + 10) for spread, size in clusters]
    largest = max([one for one, (_, size) in zip(phi, clusters, strict=True) if size > 1], default=0.0)
    phi = [one if size > 1 else largest for one, (_, size) in zip(phi, clusters, strict=True)]
    clipped = np.clip(phi, np.percentile(phi, 10), np.percentile(phi, 90))
    expected = [1.0] * len(phi) if clipped.mean() == 0 else np.maximum(clipped / clipped.mean(), 1e-2)
    spread, counts = (torch.tensor(column, dtype=torch.float64) for column in zip(*clusters, strict=True))
    found = concentration(spread, counts.long(), 0.2)
    np.testing.assert_allclose(found.numpy(), 0.2 * np.array(expected), rtol=1e-9)


def test_clusters_have_their_means_and_their_concentrations() -> None:
    points, truth = blobs(4, 6)
    clustering = Clustering(4, 16, 0.2).double()
    clustering.of_images(24)
    clustering.find(points.double(), seed=3, restarts=5, iterations=20)
    assert same_partition(clustering.labels, truth)
    spreads, counts = [], []
    for cluster in range(4):
        inside = points[clustering.labels == cluster].double()
        torch.testing.assert_close(clustering.prototypes[cluster], normalize(inside.mean(0), dim=0))
        spreads.append(float((inside - inside.mean(0)).norm(dim=1).mean()))
        counts.append(len(inside))
    expected = concentration(torch.tensor(spreads, dtype=torch.float64), torch.tensor(counts), 0.2)
    torch.testing.assert_close(clustering.concentrations, expected, rtol=1e-6, atol=0)
    assert clustering.concentrations.mean().item() == pytest.approx(0.2)


def test_prototypes_come_after_the_first_epochs() -> None:
    """And are those of the key encoder's embeddings as they are at the time."""
    method = small_method(PCLConfig, instance_epochs=2)
    method.dataset(Drawn(8), 16, 0)
    points, asked = normalize(normal(0, 8, 16).float(), dim=1), []

    def embed() -> torch.Tensor:
        asked.append(int(method.epochs))
        return 3 * points

    batch = batch_of(method)
    for epoch in range(4):
        torch.manual_seed(epoch)
        method.on_epoch_start(embed)
        scalars = method(batch)
        expected = scalars["instance_loss"] + (scalars["prototype_loss"] if epoch >= 2 else 0)
        torch.testing.assert_close(scalars["loss"].detach(), expected)
    assert asked == [3, 4]
    for clustering in method.clusterings:
        means = [points[clustering.labels == cluster].mean(0) for cluster in clustering.labels.unique()]
        torch.testing.assert_close(
            clustering.prototypes[clustering.labels.unique()], normalize(torch.stack(means), dim=1)
        )


def test_what_is_clustered_is_the_key_encoder_s() -> None:
    method = small_method(PCLConfig).eval()
    method.key_encoder.eval()
    with torch.no_grad():
        for weight in method.key_encoder.parameters():
            weight.mul_(0.9)
        view = batch_of(method)[0][0]
        found = method.embedder(view)
        expected = method.key_encoder.head(method.key_encoder.backbone(view))
    assert found.shape == (8, 16)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, method.head(method.backbone(view)))


def test_few_others_are_drawn_anew_in_each_step() -> None:
    method = small_method(PCLConfig, granularities=(8,), negatives=2)
    method.dataset(Drawn(8), 16, 0)
    torch.manual_seed(0)
    method.on_epoch_start(lambda: torch.eye(8, 16))
    batch, found = batch_of(method), set()
    for seed in range(4):
        torch.manual_seed(seed)
        scalars = method(batch)
        found.add(round(scalars["prototype_loss"].item(), 6))
        assert float(scalars["chance"]) == pytest.approx(math.log(1 + 16) + math.log(3))
    assert len(found) > 1


def test_fewer_images_than_clusters_are_refused_before_training() -> None:
    with pytest.raises(ImageSourceError, match=r"3 images cannot fill 4 clusters: .* at most 3, or add images"):
        small_method(PCLConfig).dataset(Drawn(3), 16, 0)


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"granularities": ()}, "granularities is (), but must be one number of clusters or more"),
        ({"granularities": (4, 1)}, "each at least 2"),
        ({"negatives": 3}, "negatives is 3, but must be below 3, the fewest clusters, or 0 for all"),
        ({"instance_epochs": -1}, "instance_epochs is -1, but must be at least 0"),
        ({"iterations": 0}, "iterations must be positive"),
    ],
    ids=str,
)
def test_a_wrong_choice_is_refused_in_words(choices: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        small_method(PCLConfig, **choices)


def test_the_two_versions_and_their_state_on_imagenet() -> None:
    second, first = (get(f"resnet50_pcl.in1k_{tag}").method for tag in ("200ep", "200ep_v1"))
    with weightless():
        method, linear = (config.build(timm.create_model("resnet50", num_classes=0)) for config in (second, first))
        before = size_of_state(method)
        for clustering in method.clusterings:  # type: ignore[attr-defined]
            clustering.of_images(1_281_167)
    assert widths(method.head) == [2048, 2048, 128]  # type: ignore[arg-type]
    assert isinstance(linear.head, nn.Linear)
    assert size_of_state(method) - before == 3 * 8 * 1_281_167
    assert sum(clustering.prototypes.nbytes for clustering in method.clusterings) == 4 * 128 * 175_000  # type: ignore[attr-defined]
    assert (first.views[0].jitter, second.views[0].blur_p) == ((0.4,) * 4, 0.5)  # type: ignore[attr-defined]
