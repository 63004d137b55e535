"""Copies of training images among the validation images are found, whatever holds them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import hostile
import pyarrow as pa
import pytest
from drawn_objects import voc
from evaluations import evaluated, labelled_images
from image_sources import fill, write
from runs import image_folder, tiny
from scenes import voc_folder

from ssl_backbones.data import open_images, source
from ssl_backbones.data.copies import copies_among, copies_sentence
from ssl_backbones.data.parquet_in_place import RowGroupImages
from ssl_backbones.evaluate.detection import detect
from ssl_backbones.evaluate.detection.detect_run import PRESETS as DETECTIONS
from ssl_backbones.evaluate.labelled import open_labelled
from ssl_backbones.evaluate.protocols import knn
from ssl_backbones.evaluate.segmentation import segment
from ssl_backbones.evaluate.segmentation.segment_run import PRESETS as SEGMENTATIONS
from ssl_backbones.methods import BYOLConfig
from ssl_backbones.recipes.settings import Monitoring
from ssl_backbones.train import pretrain
from ssl_backbones.train.baselines import drawn_once
from ssl_backbones.train.monitor import Monitor


def jpegs(seeds: list[int]) -> list[bytes]:
    return [hostile.jpeg(seed=seed) for seed in seeds]


def folder(path: Path, files: list[bytes]) -> Path:
    for number, content in enumerate(files):
        (path / f"{number}.jpg").parent.mkdir(parents=True, exist_ok=True)
        (path / f"{number}.jpg").write_bytes(content)
    return path


def table(path: Path, files: list[bytes]) -> Path:
    return write(path.with_suffix(".parquet"), image=pa.array(files, pa.binary()))


def named(path: Path, files: list[bytes]) -> Path:
    rows = [{"bytes": None, "path": str(folder(path, files) / f"{number}.jpg")} for number in range(len(files))]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return write(path.with_suffix(".parquet"), image=pa.array(rows, kind))


@pytest.mark.parametrize("kept", [folder, table, named])
@pytest.mark.parametrize("asked", [folder, table, named])
@pytest.mark.parametrize("memory", [2**20, 0])
def test_copies_are_counted_and_named(tmp_path, monkeypatch, kept, asked, memory):
    monkeypatch.setattr(source, "HELD_IN_MEMORY", memory)
    images = open_images(kept(tmp_path / "train", jpegs([0, 1, 2, 3])))
    validation = open_images(asked(tmp_path / "val", jpegs([9, 2, 8, 0])))
    assert memory or kept is folder or isinstance(images, RowGroupImages)
    assert copies_among(validation, images) == [1, 3]
    said = copies_sentence(validation, images)
    assert "2 of the 4 validation images are copies of training images" in said
    assert repr(validation.keys[1]) in said
    assert copies_sentence(open_images(asked(tmp_path / "other", jpegs([7, 6]))), images) == ""
    assert copies_sentence(None, images) == ""


def test_images_that_are_asked_about_themselves_are_told(tmp_path):
    images = open_images(folder(tmp_path / "train", jpegs([0, 1, 2])))
    assert copies_among(images, images) == [0, 1, 2]
    assert "all 3 validation images are training images" in copies_sentence(images, images)


def classified(root):
    """Class folders of eight images to learn from and six to ask about."""
    image_folder(root / "train", 8)
    image_folder(root / "val", 6)  # the same drawings
    for number in range(1, 6):
        (root / "val" / ("bag", "hat")[number % 2] / f"{number:02}.jpg").write_bytes(hostile.jpeg(seed=number))
    return root


def labelled(root):
    return lambda: open_labelled(knn.Options(model="resnet8", data=str(classified(root)), out=root / "out"), "k-NN")


def pretraining(root):
    return lambda: pretrain.open_data(tiny(BYOLConfig, classified(root), root.parent / "out"))


def segmentation(root):
    path = voc_folder(root, train=16) / "JPEGImages"
    (path / "p16.jpg").write_bytes((path / "p1.jpg").read_bytes())  # of one shape
    return lambda: segment.open_data(replace(SEGMENTATIONS["small"], data=str(root), batch_size=4, out="out"))


def detection(root):
    path = voc(root) / "JPEGImages"
    (path / "000004.jpg").write_bytes((path / "000000.jpg").read_bytes())
    return lambda: detect.open_data(replace(DETECTIONS["small"], data=str(root), batch_size=4, out="out"))


@pytest.mark.parametrize("opened", [labelled, pretraining, segmentation, detection])
def test_every_command_that_tests_says_that_the_splits_share_images(opened, tmp_path, capsys):
    opened(tmp_path / "data")()
    said = capsys.readouterr().out
    assert re.search(r"warning: 1 of the \d validation images are copies of training images \('", said), said


def test_results_count_the_images_that_were_learnt_from(tmp_path):
    assert evaluated("knn", classified(tmp_path / "data"), tmp_path / "out")["validation"]["copies"] == 1
    apart = labelled_images(tmp_path / "apart")
    for number, path in enumerate(sorted((apart / "val").rglob("*.jpg"))):
        path.write_bytes(hostile.jpeg(seed=number))
    assert "copies" not in evaluated("knn", apart, tmp_path / "other")["validation"]


def own_bank(root):
    data = str(image_folder(root, 8))
    return lambda: open_labelled(knn.Options(model="resnet8", data=data, validation=data, out=root / "out"), "k-NN")


def own_queries(root):
    data = str(image_folder(root, 8))
    return lambda: pretrain.open_data(tiny(BYOLConfig, Path(data), root.parent / "out", validation=data))


def own_scenes(root):
    run = replace(SEGMENTATIONS["small"], data=str(voc_folder(root)), batch_size=4, out="out")
    return lambda: segment.open_data(replace(run, validation=run.data, validation_lists=run.train_lists))


def own_objects(root):
    run = replace(DETECTIONS["small"], data=f"{voc(root)}:trainval", batch_size=4, out="out")
    return lambda: detect.open_data(replace(run, validation=run.data))


@pytest.mark.parametrize("opened", [own_bank, own_queries, own_scenes, own_objects])
def test_every_command_that_tests_says_that_the_splits_are_one(opened, tmp_path, capsys):
    opened(tmp_path / "data")()
    assert re.search(r"warning: all \d+ validation images are training images", capsys.readouterr().out)


def test_files_that_are_gone_or_empty_are_no_copies(tmp_path):
    images = open_images(fill(tmp_path / "train", "0.jpg", "1.jpg"))
    validation = open_images(folder(tmp_path / "val", [b"", hostile.jpeg(seed=0)]))
    (tmp_path / "train" / "1.jpg").write_bytes(b"")
    assert copies_among(validation, images) == [1]


def doubled(single: Path, path: Path) -> Path:
    """A folder in which each image of another lies twice."""
    for file in single.rglob("*.jpg"):
        for copy in ("a", "b"):
            place = path / file.parent.relative_to(single) / f"{file.stem}{copy}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
    return path


def test_copies_within_a_source_do_not_name_each_other(tmp_path, capsys):
    single = image_folder(tmp_path / "single", 40)
    twice = doubled(single, tmp_path / "twice")
    alone, both = (evaluated("knn", data, tmp_path / f"{data.name}_out") for data in (single, twice))
    assert "40 of the 80 labelled images of" in capsys.readouterr().out
    assert both["numbers"] == alone["numbers"]
    assert both["bank"] == alone["bank"] | {"copies_left_out": 40}
    with_queries = evaluated("knn", twice, tmp_path / "asked", "--validation", str(single))
    assert with_queries["bank"]["images"] == 80


def test_a_monitor_and_a_verdict_ask_about_no_image_twice(tmp_path):
    images = open_images(str(doubled(image_folder(tmp_path / "single", 20), tmp_path / "twice")))
    seen = [str(key)[:-5] for key in images.keys]
    drawn = (Monitor(images, None, Monitoring(), 0).bank, drawn_once(images, 0, 3, 1000), drawn_once(images, 0, 4, 30))
    for rows in drawn:
        assert len({seen[row] for row in rows}) == len(rows)
    assert len(drawn[0]) == len(drawn[1]) == 20
    assert len(Monitor(images, images, Monitoring(), 0).bank) == 40
