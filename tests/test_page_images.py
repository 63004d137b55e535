"""The images of a page: read, told and compared, held to slow literal versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from image_sources import image_files
from small_methods import small_method

from ssl_backbones import create_model
from ssl_backbones.data import ImageSourceError, open_images
from ssl_backbones.methods import (
    LewelBConfig,
    Method,
    MethodConfig,
    PatchRotNetConfig,
    RotNetConfig,
)
from ssl_backbones.views import CenterCrop
from ssl_backbones.visualizers.page import agreement, counted, heat_alt, mean_cosine
from ssl_backbones.visualizers.page_images import Viewer, read_page_images, task_views, view_pairs

__all__ = ["image_files"]


def viewer(model: torch.nn.Module) -> Viewer:
    return Viewer("small", model, CenterCrop(16), torch.device("cpu"))


def test_images_are_shown_under_their_own_names_and_features(image_files: Path) -> None:
    source = open_images(str(image_files))
    network = create_model("resnet8").eval()
    seen = read_page_images(viewer(network), source, 99)
    assert seen.unreadable == 1
    assert len(seen.indices) == len(source) - 1 == len(seen.features)
    crop = CenterCrop(16)
    for at in (0, len(seen.indices) - 1):
        alone = crop.on_device(crop.on_host([source[seen.indices[at]]], None))
        assert seen.name(at) == source.keys[seen.indices[at]]
        torch.testing.assert_close(network(alone), seen.features[at : at + 1], rtol=1e-4, atol=1e-5)
        expected = np.asarray(CenterCrop(144).on_host([source[seen.indices[at]]], None)[0])
        assert np.array_equal(np.asarray(seen.shown[at]), expected)


def test_images_none_of_which_can_be_read_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(b"nothing")
    with pytest.raises(ImageSourceError, match="none of 2 images"):
        read_page_images(viewer(create_model("resnet8")), open_images(str(tmp_path)), 5)


@pytest.mark.parametrize(("kind", "count"), [(PatchRotNetConfig, 8), (RotNetConfig, 4)])
def test_views_are_those_of_training_and_told_by_the_own_head(
    kind: type[MethodConfig], count: int, image_files: Path
) -> None:
    method: Method = small_method(kind)
    who = viewer(method)
    seen = read_page_images(who, open_images(str(image_files)), 4)
    views = task_views(who, seen, 1)
    assert method.training
    assert views
    assert len(views.pictures) == len(views.heats) == len(views.titles) == len(views.told) == count
    upright = np.asarray(views.pictures[0]).astype(int)
    for quarters in range(4):
        assert np.abs(np.asarray(views.pictures[quarters]).astype(int) - np.rot90(upright, quarters)).max() <= 1
    assert 0 <= views.heats.min() <= views.heats.max() <= 1


def test_turns_are_shown_for_methods_that_learn_by_them_alone(image_files: Path) -> None:
    for network in (small_method(LewelBConfig), small_method(PatchRotNetConfig).backbone):
        who = viewer(network)
        assert task_views(who, read_page_images(who, open_images(str(image_files)), 2), 0) is None


def test_the_mean_cosine_is_that_of_a_loop() -> None:
    features = torch.randn(7, 5, dtype=torch.float64)
    pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
    told = sum(torch.cosine_similarity(features[i], features[j], dim=0).item() for i, j in pairs) / len(pairs)
    assert mean_cosine(features) == pytest.approx(told, abs=1e-12)


def test_images_that_are_not_all_are_said_to_be_some(image_files: Path) -> None:
    who, source = viewer(create_model("resnet8")), open_images(str(image_files))
    assert (
        counted(read_page_images(who, source, 4)) == f"3 of {len(source)} images, evenly spaced"
    )  # the fourth is broken
    assert counted(read_page_images(who, source, len(source))) == f"{len(source) - 1} images"


def test_pairs_of_views_are_for_methods_that_take_two(image_files: Path) -> None:
    for kind, has in ((LewelBConfig, True), (PatchRotNetConfig, False)):
        who = viewer(small_method(kind))
        pairs = view_pairs(who, read_page_images(who, open_images(str(image_files)), 4), [0, 2])
        assert (pairs is not None) == has
        if pairs:
            (first, second), maps = pairs
            assert len(first) == len(second) == 2
            assert np.asarray(first[0]).tolist() != np.asarray(second[0]).tolist()
            for of in maps:
                assert of.sum((2, 3)).sub(1).abs().max() < 1e-4


def test_agreement_is_counted_beside_chance(image_files: Path) -> None:
    seen = read_page_images(viewer(create_model("resnet8")), open_images(str(image_files)), 99)
    assert seen.labels is not None
    seen.features[:] = torch.nn.functional.one_hot(torch.from_numpy(seen.labels), seen.features.shape[1]).float()
    first, second = np.bincount(seen.labels)
    chance = (first * (first - 1) + second * (second - 1)) / (len(seen.labels) * (len(seen.labels) - 1))
    assert list(agreement(seen).values()) == [f"100.0% of {len(seen.labels)}", f"{chance:.1%}"]


def test_a_map_is_told_in_words() -> None:
    heat = np.zeros((9, 9))
    assert heat_alt("norm", heat) == "norm: zero everywhere"
    heat[8, 0] = 1
    heat[8, 1] = 0.6
    assert heat_alt("norm", heat) == "norm: highest at the bottom left, above half of that on 2% of the image"
