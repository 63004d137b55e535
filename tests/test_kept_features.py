"""The features that distillation keeps: made once, checked, resumed, shared, and refused where they are of others."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import drawn_image
from distilling import distilling
from PIL import Image
from runs import elsewhere, image_folder, outcome, run, stop, tiny
from small_methods import SMALL, Drawn, leave_teacher
from torch import Tensor
from two_processes import run_two_processes

from ssl_backbones.data import UnreadableImageError, open_images
from ssl_backbones.data.subset import Subset
from ssl_backbones.methods.distilled import DistilledConfig
from ssl_backbones.models import images_ahead, kept_features, teacher_moments
from ssl_backbones.models.kept_features import INDEX, keep_features
from ssl_backbones.models.teacher import Seen, Teacher, TeacherError
from ssl_backbones.products import network_products
from ssl_backbones.train.cache import Caching, cached
from ssl_backbones.train.pretrain import kept_as_pixels, open_data


def test_those_of_images_that_a_cache_changed_are_others(tmp_path: Path) -> None:
    """Such a cache has them for itself."""
    data = str(image_folder(tmp_path / "photos"))
    source, kept = open_images(data), tmp_path / "kept"
    smaller = cached(source, data, Caching(tmp_path / "cache", side=16))
    keep_features(Teacher(SMALL["teacher"]), 32, smaller, kept)
    for images in (source, cached(source, data, Caching(tmp_path / "cache")), Subset(source, np.arange(len(source)))):
        with pytest.raises(TeacherError, match=r"are of other images .*jpeg of 16 px there, and .*: delete"):
            keep_features(Teacher(SMALL["teacher"]), 32, images, kept)
    keep_features(Teacher(SMALL["teacher"]), 32, smaller, kept)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_features, "BLOCK", 4)
    monkeypatch.setattr(images_ahead, "BATCH", 3)


def test_a_teacher_sees_the_middle_square_alone() -> None:
    """Two photos of 3:2 that differ in their margins, left and right, have the same features."""
    teacher, middle = Teacher(SMALL["teacher"]), drawn_image(1, 32, 32)
    crop, found = teacher.crop(32), []
    for margin in ("black", "white"):
        photo = Image.new("RGB", (48, 32), margin)
        photo.paste(middle, (8, 0))
        found.append(teacher.look(crop.on_device(crop.on_host([photo], None))).features)
    assert torch.equal(*found)


@pytest.mark.parametrize("device", [torch.device("cpu"), torch.device("cuda", 0)])
@pytest.mark.parametrize("kept", [True, False])
def test_a_teacher_multiplies_as_a_network_may(
    kept: bool, device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    look = Teacher.look

    def noting(teacher: Teacher, images: Tensor) -> Seen:
        seen.add(torch.get_float32_matmul_precision())
        return look(teacher, images)

    monkeypatch.setattr(Teacher, "look", noting)
    for place in (images_ahead, teacher_moments):
        monkeypatch.setattr(place, "network_products", lambda _: network_products(device))
    teacher = Teacher(SMALL["teacher"])
    if kept:
        keep_features(teacher, 32, Drawn(3), tmp_path / "kept")
    else:
        teacher_moments.looked_over(teacher, 32, Drawn(3))
    assert seen == {"high" if device.type == "cuda" else "highest"}


@pytest.mark.usefixtures("small_blocks")
class TestKeptFeatures:
    def test_they_are_those_of_the_teacher_image_by_image(self, tmp_path: Path) -> None:
        images, teacher = Drawn(11), Teacher(SMALL["teacher"])
        kept = keep_features(teacher, 32, images, tmp_path / "kept")
        crop = teacher.crop(32)
        assert (len(kept), kept.width, len(list((tmp_path / "kept").glob("0*.safetensors")))) == (11, 64, 3)
        for row in range(11):
            alone = teacher.look(crop.on_device(crop.on_host([images[row]], None))).features[0]
            np.testing.assert_allclose(kept[np.array([row])][0], alone.numpy(), rtol=2e-3, atol=1e-3)
        rows = np.array([10, 0, 7, 7])
        again = pickle.loads(pickle.dumps(kept))
        assert not again.maps
        np.testing.assert_array_equal(again[rows], kept[rows])
        assert kept[rows].dtype == np.float16

    def test_they_are_made_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        teacher = Teacher(SMALL["teacher"])
        keep_features(teacher, 32, Drawn(11), tmp_path / "kept")
        monkeypatch.setattr(kept_features, "embedded", None)
        keep_features(teacher, 32, Drawn(11), tmp_path / "kept")

    def test_a_making_goes_on_where_it_was_killed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        teacher, made, embedded = Teacher(SMALL["teacher"]), [], kept_features.embedded

        def killed_in_the_third(*args: Any) -> Tensor:
            made.append(args[3])
            if len(made) == 3:
                raise KeyboardInterrupt
            return embedded(*args)

        monkeypatch.setattr(kept_features, "embedded", killed_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            keep_features(teacher, 32, Drawn(14), tmp_path / "kept")
        kept = keep_features(teacher, 32, Drawn(14), tmp_path / "kept")
        assert [int(rows[0]) for rows in made] == [0, 4, 8, 8, 12]
        monkeypatch.setattr(kept_features, "embedded", embedded)
        undisturbed = keep_features(teacher, 32, Drawn(14), tmp_path / "other")
        np.testing.assert_array_equal(kept[np.arange(14)], undisturbed[np.arange(14)])

    def test_a_folder_of_something_else_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(TeacherError, match="holds no features of a teacher, and something else"):
            keep_features(Teacher(SMALL["teacher"]), 32, Drawn(3), tmp_path)

    def test_a_place_that_cannot_be_written_to_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(TeacherError, match=r"features cannot be kept in .*: name a folder that can be written to"):
            keep_features(Teacher(SMALL["teacher"]), 32, Drawn(3), tmp_path / "file" / "kept")

    def test_an_unreadable_image_has_zeros(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Torn(Drawn):
            def __getitem__(self, index: int) -> Image.Image:
                if index == 5:
                    raise UnreadableImageError("5.png is torn")
                return super().__getitem__(index)

        kept = keep_features(Teacher(SMALL["teacher"]), 32, Torn(7), tmp_path / "kept")
        assert [bool(kept[np.array([row])].any()) for row in range(7)] == [row != 5 for row in range(7)]
        monkeypatch.setattr(kept_features, "embedded", None)
        keep_features(Teacher(SMALL["teacher"]), 32, Torn(7), tmp_path / "kept")
        assert "1 images of " in capsys.readouterr().out

    def test_a_teacher_that_says_nothing_of_an_image_is_asked_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its features are zeros, as those of an image that cannot be read."""
        teacher = Teacher(SMALL["teacher"])
        monkeypatch.setattr(teacher, "look", lambda images: Seen(torch.zeros(len(images), 64), None))
        keep_features(teacher, 32, Drawn(7), tmp_path / "kept")
        monkeypatch.setattr(kept_features, "embedded", None)
        keep_features(teacher, 32, Drawn(7), tmp_path / "kept")

    def test_an_image_that_can_be_read_again_gets_its_features(self, tmp_path: Path) -> None:
        class Passing(Drawn):
            away = True

            def __getitem__(self, index: int) -> Image.Image:
                if index in (2, 5) and self.away:
                    raise UnreadableImageError("the disk is away")
                return super().__getitem__(index)

        images, teacher = Passing(11), Teacher(SMALL["teacher"])
        keep_features(teacher, 32, images, tmp_path / "kept")
        images.away = False
        kept = keep_features(teacher, 32, images, tmp_path / "kept")
        undisturbed = keep_features(teacher, 32, images, tmp_path / "other")
        np.testing.assert_array_equal(kept[np.arange(11)], undisturbed[np.arange(11)])

    def test_two_processes_keep_what_one_keeps(self, tmp_path: Path) -> None:
        alone = keep_features(Teacher(SMALL["teacher"]), 32, Drawn(11), tmp_path / "alone")[np.arange(11)]
        first, second = run_two_processes(kept_by_two, str(tmp_path / "both"), SMALL["teacher"])
        assert torch.equal(first, second)
        np.testing.assert_allclose(first.double().numpy(), alone.astype(float), rtol=2e-3, atol=1e-3)


def kept_by_two(rank: int, folder: str, teacher: str) -> Tensor:
    return torch.from_numpy(keep_features(Teacher(teacher), 32, Drawn(11), Path(folder))[np.arange(11)])


def test_a_run_of_kept_features_goes_on_where_it_stopped(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "photos")
    for workers in (0, 1):
        recipe = tiny(DistilledConfig, data, tmp_path / f"whole{workers}", {"kept": "beside"}, workers=workers)
        whole = run(recipe)
        stop(elsewhere(recipe, tmp_path / f"cut{workers}"), 4)
        assert outcome(run(elsewhere(recipe, tmp_path / f"cut{workers}")).path) == outcome(whole.path)
    assert outcome(tmp_path / "whole0")["state"] == outcome(tmp_path / "whole1")["state"]
    (beside,) = tmp_path.glob("photos.photos.teacher-pooled-*")
    assert (beside / INDEX).exists()


@pytest.mark.parametrize("hold_out", [0, 2])
def test_pixels_in_a_cache_are_images_that_the_teacher_has_seen(
    hold_out: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All images, and a part of them; not those that are encoded anew, which are others."""
    data = image_folder(tmp_path / "photos")
    recipe = tiny(DistilledConfig, data, tmp_path / "run", {"kept": "beside"}, hold_out=hold_out)
    stop(recipe, 2)
    (seen,) = tmp_path.glob("photos*.photos.teacher-pooled-*")
    recipe = replace(recipe, cache=str(tmp_path / "cache"))
    images, _ = open_data(recipe)
    encoded, _ = kept_as_pixels(replace(recipe, reencode=20), images, None)
    assert encoded.place != images.place
    monkeypatch.setattr(kept_features, "embedded", None)
    run(recipe)
    assert [*tmp_path.glob("photos*.photos.teacher-pooled-*")] == [seen]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("engine", ["pillow", "opencv", "device"])
def test_kept_features_go_with_every_engine_and_accumulation(engine: Any, accumulation: int, tmp_path: Path) -> None:
    data = image_folder(tmp_path / "photos")
    choices = {"kept": str(tmp_path / "kept")}
    recipe = tiny(
        DistilledConfig, data, tmp_path / "run", choices, engine=engine, accumulation=accumulation, max_steps=2
    )
    run(recipe)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["steps"] == 2


def test_features_lie_beside_images_that_lie_somewhere(tmp_path: Path) -> None:
    method = distilling(kept="beside")
    images = open_images(str(image_folder(tmp_path / "photos")))
    for name in ("a", "b"):
        of_a_run = distilling(kept="beside", teacher=str(leave_teacher(tmp_path / name / "backbone")))
        assert of_a_run.branch.folder_for(images, 32) == tmp_path / f"photos.{name}-pooled-32px"
    assert method.branch.folder_for(images, 32) == tmp_path / "photos.teacher-pooled-32px"
    with pytest.raises(TeacherError, match="cannot be kept beside these images, which lie in no folder of this"):
        method.branch.folder_for(Drawn(3), 32)
    shutil.rmtree(tmp_path / "photos")
