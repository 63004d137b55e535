"""Refusals of tasks with labels, in a sentence and before anything is written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import labelled_runs
import pytest
from labelled_runs import divided, small, tinted

from ssl_backbones.data import ImageSourceError
from ssl_backbones.evaluate.classification.labelled_views import LabelledViews
from ssl_backbones.evaluate.classification.linear import LinearConfig
from ssl_backbones.evaluate.protocols import linear
from ssl_backbones.recipes.settings import ScheduleConfig
from ssl_backbones.train.prepare import UnfitError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return divided(tmp_path_factory.mktemp("tinted"))


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    tinted(tmp_path / "photos")
    for image in list((tmp_path / "photos").rglob("*.png")):
        image.rename(tmp_path / "photos" / image.name)
    for name in labelled_runs.COLOURS:
        (tmp_path / "photos" / name).rmdir()
    with pytest.raises(ImageSourceError, match=r"needs labels, and the 36 images of .*photos have none"):
        labelled_runs.run(linear, small(linear, "moco_v2", tmp_path / "photos", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_classes_that_training_lacks_are_refused(data: Path, tmp_path: Path) -> None:
    tinted(tmp_path / "val", names=("red", "violet"))
    options = small(linear, "moco_v2", data, tmp_path / "run", validation=str(tmp_path / "val"))
    with pytest.raises(ImageSourceError, match="'violet'"):
        labelled_runs.run(linear, options)


def test_nothing_to_ask_about_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageSourceError, match="name labelled images with --validation"):
        labelled_runs.run(linear, small(linear, "moco_v2", tinted(tmp_path / "photos"), tmp_path / "run"))


@pytest.mark.parametrize("preset", ["moco_v2", "patch"])
def test_more_classes_than_the_head_are_refused(preset: str, data: Path, tmp_path: Path) -> None:
    task = dataclasses.replace(linear.PRESETS[preset].task, classes=2)
    with pytest.raises(UnfitError, match=r"3 classes and the head tells 2 apart: set --task\.classes to 3"):
        labelled_runs.run(linear, small(linear, preset, data, tmp_path / "run", task=task))
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_data_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageSourceError, match="at most 36"):
        labelled_runs.run(linear, small(linear, "moco_v2", data, tmp_path / "run", batch_size=256))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: LinearConfig(classes=-1), "task.classes is -1"),
        (lambda: LinearConfig(head_std=0.0), r"task.head_std is 0\.0"),
        (lambda: LabelledViews(test_crop_pct=1.5), r"test_crop_pct is 1\.5"),
        (lambda: LabelledViews(area=(0.5, 0.2)), "area is"),
        (lambda: dataclasses.replace(linear.MOCO, size=-1), "size is -1"),
        (lambda: dataclasses.replace(linear.MOCO, judge_every=-1), "judge_every is -1"),
        (lambda: dataclasses.replace(linear.MOCO, epochs=0), "epochs is 0"),
        (lambda: dataclasses.replace(linear.MOCO, schedule=ScheduleConfig(warmup_epochs=100)), "warmup_epochs is 100"),
    ],
)
def test_wrong_choices_are_refused(make: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()
