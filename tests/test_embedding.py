"""Features on a plane, images laid out by them, and neighbours."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssl_backbones.visualizers import (
    MissingExtraError,
    embed_2d,
    nearest,
    neighbour_sheet,
    thumbnail_map,
    trustworthiness,
)
from ssl_backbones.visualizers.embedding import Projection, principal_components
from ssl_backbones.visualizers.thumbnails import (
    COLOURS,
    MARKS,
    REACH,
    lay_out,
    legend_names,
    mark_of,
    mark_picture,
    ordered_labels,
)

PLAIN = [Image.new("RGB", (8, 8), (index, 0, 0)) for index in range(60)]


def blobs(count: int = 60, width: int = 12, seed: int = 0) -> torch.Tensor:
    """Features (N, D) in three groups far apart."""
    stream = np.random.default_rng(seed)
    centres = 8 * stream.normal(size=(3, width))
    return torch.from_numpy(centres[np.arange(count) % 3] + stream.normal(size=(count, width)))


def test_pca_is_that_of_scikit_learn_up_to_the_sign_it_fixes() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    rows = blobs().numpy()
    theirs, ours = decomposition.PCA(2).fit_transform(rows), embed_2d(rows, "pca").places
    assert np.abs(np.abs(ours) - np.abs(theirs)).max() < 1e-9
    assert (ours[np.abs(ours).argmax(0), [0, 1]] > 0).all()
    assert np.allclose(embed_2d(rows[:, :1]).places[:, 1], 0)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(7, 40), k=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_trustworthiness_is_that_of_scikit_learn(count: int, k: int, seed: int) -> None:
    manifold = pytest.importorskip("sklearn.manifold")
    stream = np.random.default_rng(seed)
    rows, places = stream.normal(size=(count, 5)), stream.normal(size=(count, 2))
    assert trustworthiness(rows, places, k) == pytest.approx(manifold.trustworthiness(rows, places, n_neighbors=k))
    assert trustworthiness(places, places, k) == 1


@pytest.mark.parametrize("method", ["tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_learned_maps_are_repeatable_and_can_be_trusted(method: Projection) -> None:
    pytest.importorskip({"tsne": "sklearn", "umap": "umap"}[method], exc_type=ImportError)
    state = np.random.get_state()[1].tolist()
    first, again = embed_2d(blobs(), method, seed=3), embed_2d(blobs(), method, seed=3)
    assert np.array_equal(first.places, again.places)
    assert first.trustworthiness > 0.9
    assert np.random.get_state()[1].tolist() == state
    groups = first.places.reshape(20, 3, 2)
    inside = np.linalg.norm(groups - groups.mean(0), axis=2).max()
    centres = groups.mean(0)
    assert np.linalg.norm(centres - centres[[1, 2, 0]], axis=1).min() > inside


@pytest.mark.parametrize("features", [torch.ones(6, 4), torch.zeros(5, 1), blobs(5)])
def test_few_and_equal_features_have_places(features: torch.Tensor) -> None:
    for method in ("pca", "tsne"):
        if method == "tsne":
            pytest.importorskip("sklearn")
        places = embed_2d(features, method).places
        assert places.shape == (len(features), 2)
        assert np.isfinite(places).all()


@pytest.mark.parametrize(
    ("features", "method", "sentence"),
    [
        (torch.zeros(4, 3), "pca", r"features are \(4, 3\)"),
        (torch.zeros(9), "pca", r"features are \(9,\)"),
        (torch.full((9, 2), torch.nan), "pca", "NaN or infinity"),
        (torch.zeros(9, 2), "mds", "pca, tsne, umap"),
    ],
)
def test_what_has_no_map_is_refused(features: torch.Tensor, method: Projection, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        embed_2d(features, method)


@pytest.mark.parametrize(
    ("method", "module", "way"), [("tsne", "sklearn.manifold", "viz"), ("umap", "umap", "umap-learn")]
)
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, method: Projection, module: str, way: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=f"pip install.*{way}"):
        embed_2d(blobs(), method)
    assert embed_2d(blobs(), "pca").method == "pca"


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 80), columns=st.integers(2, 9), rows=st.integers(2, 9), seed=st.integers(0, 99))
def test_no_image_lies_on_another_or_far_from_its_place(count: int, columns: int, rows: int, seed: int) -> None:
    places = np.random.default_rng(seed).normal(size=(count, 2))
    at, cells = lay_out(places, columns, rows)
    taken = set(cells.values())
    assert len(taken) == len(cells)
    for image, cell in cells.items():
        assert 0 <= cell[0] < columns
        assert 0 <= cell[1] < rows
        assert np.linalg.norm(at[image] - cell) <= REACH
    for image in set(range(count)) - cells.keys():
        x, y = np.meshgrid(np.arange(columns), np.arange(rows))
        near = np.hypot(x - at[image, 0], y - at[image, 1]) <= REACH
        assert {(int(a), int(b)) for a, b in zip(x[near], y[near], strict=True)} <= taken


def test_up_is_up_and_lonely_images_are_where_they_belong() -> None:
    _, cells = lay_out(np.array([[0.0, 0], [10, 0], [10, 5]]), 11, 6)
    assert cells == {0: (0, 5), 1: (10, 5), 2: (10, 0)}
    assert lay_out(np.zeros((2, 2)), 3, 3)[1].keys() == {0, 1}


def test_the_most_frequent_classes_have_marks_and_no_two_the_same() -> None:
    labels = [label for label in range(MARKS + 2) for _ in range(1 if label in (0, 3) else 2)]
    numbers, order = ordered_labels([*labels, -1], len(labels) + 1)
    assert order == [label for label in range(MARKS + 2) if label not in (0, 3)]
    assert numbers[0] == MARKS
    assert numbers[-1] == -1
    assert len({mark_of(number) for number in range(MARKS)}) == MARKS
    assert ordered_labels(None, 3) == ([-1] * 3, [])


def test_marks_stand_out_from_light_and_dark_paper() -> None:
    for colour in COLOURS:
        for paper in ("ffffff", "1d2026"):
            assert contrast(colour.lstrip("#"), paper) >= 3


def test_a_mark_is_drawn_in_the_colour_of_its_class_on_nothing() -> None:
    for number in range(MARKS):
        drawn = np.asarray(mark_picture(number))
        inked = drawn[drawn[..., 3] > 0]
        assert 0.15 < len(inked) / drawn[..., 0].size < 0.6
        assert {"#{:02x}{:02x}{:02x}".format(*pixel[:3]) for pixel in inked.tolist()} == {mark_of(number).colour}


def contrast(first: str, second: str) -> float:
    """The contrast of two colours as WCAG 2 defines it."""
    lights = []
    for colour in (first, second):
        coded = np.array([int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)])
        light = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
        lights.append(float(light @ [0.2126, 0.7152, 0.0722]))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_a_map_of_thumbnails_shows_each_image_once() -> None:
    places = principal_components(blobs().numpy(), 2)
    labels = np.arange(60) % 3
    drawn = np.asarray(thumbnail_map(PLAIN, places, labels, ["a", "b"], columns=30, rows=20, side=12))
    laid = lay_out(places, 30, 20)[1]
    assert laid
    for image, (column, row) in laid.items():
        assert drawn[10 + row * 18 + 3 + 11, 10 + column * 18 + 3 + 11].tolist() == [image, 0, 0]
    bare = thumbnail_map(PLAIN, places, columns=30, rows=20, side=12)
    assert drawn.shape[0] > bare.height
    column, row = next(iter(laid.values()))
    corner = (10 + row * 18 + 1, 10 + column * 18 + 1)
    assert "#{:02x}{:02x}{:02x}".format(*drawn[corner]) in COLOURS
    assert bare.getpixel(corner[::-1]) == (255, 255, 255)
    with pytest.raises(ValueError, match="60 images"):
        thumbnail_map(PLAIN, places[:5])


def test_a_legend_names_each_mark_and_all_other_classes_by_one() -> None:
    assert legend_names(None, []) == []
    assert legend_names([0, 1, -1], ["a"]) == ["a", "1"]
    many = legend_names(range(MARKS + 1), [f"class {k}" for k in range(MARKS + 1)])
    assert many == [*(f"class {k}" for k in range(MARKS)), "other classes"]


def test_neighbours_are_those_of_a_loop() -> None:
    features = blobs(20, 6)
    found, cosines = nearest(features, [4, 0], 3)
    for row, query in enumerate([4, 0]):
        by_hand = {
            other: float(torch.nn.functional.cosine_similarity(features[query], features[other], dim=0))
            for other in range(20)
            if other != query
        }
        expected = sorted(by_hand, key=lambda other: -by_hand[other])[:3]
        assert found[row].tolist() == expected
        assert cosines[row] == pytest.approx([by_hand[other] for other in expected], abs=1e-5)
    same, _ = nearest(torch.ones(4, 2), [2], 3)
    assert same.tolist() == [[0, 1, 3]]
    for k in (0, 20):
        with pytest.raises(ValueError, match=f"k is {k}"):
            nearest(features, [0], k)


def test_a_sheet_has_the_image_and_its_neighbours_in_a_row() -> None:
    features = torch.eye(6)[[0, 0, 1, 1, 2, 2]] + 0.01 * torch.arange(6)[:, None]
    images = [Image.new("RGB", (20, 10), (40 * index, 0, 0)) for index in range(6)]
    sheet = np.asarray(neighbour_sheet(images, features, [0, 4], k=2, side=10))
    reds = {int(red) for red in np.unique(sheet[..., 0][(sheet[..., 1] == 0) & (sheet[..., 2] == 0)])}
    assert {0, 40, 160, 200} <= reds
    with pytest.raises(ValueError, match="5 images and 6 features"):
        neighbour_sheet(images[:5], features, [0], k=2)
