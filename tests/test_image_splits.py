"""Which photos are for training and which for validation, in folders and in parquet files."""

from __future__ import annotations

import shutil

import pytest
from photo_sources import fill, raw, same, structs, write

from ssl_backbones.data import ImageSourceError, open_images, relabelled, validation_of


@pytest.mark.parametrize("kept", ["val", "validation", "valid", "test"])
def test_a_folder_of_splits_is_its_training_part(tmp_path, caplog, kept):
    root = fill(tmp_path, "train/a/1.jpg", "train/b/2.jpg", f"{kept}/b/3.jpg", f"{kept}/a/")
    images = open_images(root)
    assert list(images.keys) == ["a/1.jpg", "b/2.jpg"]
    assert "taking train" in caplog.text
    assert same(images, open_images(root / "train"))
    for spec in (root, root / "train"):
        validation = validation_of(spec, images)
        assert list(validation.keys) == ["b/3.jpg"]
        assert validation.labels.tolist() == [1]
    assert validation_of(root / kept, images) is None


def test_validation_comes_before_test_and_needs_labels(tmp_path):
    root = fill(
        tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/a/3.jpg", "test/b/4.jpg", "val/a/5.jpg", "val/b/6.jpg"
    )
    images = open_images(root)
    assert list(validation_of(root, images).keys) == ["a/5.jpg", "b/6.jpg"]
    shutil.move(root / "val/a/5.jpg", root / "val/5.jpg")
    assert validation_of(root, images) is None, "an image outside of the class folders takes the labels away"


def test_classes_named_as_a_split_among_others_are_classes(tmp_path):
    assert open_images(fill(tmp_path, "train/1.jpg", "bus/2.jpg")).classes == ["bus", "train"]


def test_parquet_files_of_splits(tmp_path, caplog):
    for name, seed in (
        ("train-00000-of-00002", 0),
        ("train-00001-of-00002", 4),
        ("validation-00000-of-00001", 8),
        ("test", 12),
    ):
        write(tmp_path / "data" / f"{name}.parquet", ["x", "y"], image=structs(4, seed), label=[0, 1, 1, 0])
    images = open_images(tmp_path)
    assert list(images.keys)[3:5] == ["train-00000-of-00002.parquet:3", "train-00001-of-00002.parquet:0"]
    assert len(images) == 8
    assert "taking train-00000" in caplog.text
    pattern = str(tmp_path / "data" / "train-*.parquet")
    files = sorted(tmp_path.glob("data/train-*"))
    for spec in (tmp_path / "data", pattern, files, [str(file) for file in files]):
        assert same(images, open_images(spec))
        assert list(validation_of(spec, images).keys) == [
            f"validation-00000-of-00001.parquet:{row}" for row in range(4)
        ]
    assert validation_of(tmp_path / "data" / "test.parquet", images) is None


def test_parquet_without_splits_is_taken_whole(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.parquet", image=structs(2))
    images = open_images(tmp_path)
    assert list(images.keys) == ["a.parquet:0", "a.parquet:1", "b.parquet:0", "b.parquet:1"]
    assert validation_of(tmp_path, images) is None


def test_a_class_missing_from_the_validation_photos_leaves_the_others_their_numbers(tmp_path):
    write(tmp_path / "train.parquet", image=raw(3), label=["ant", "bee", "cow"])
    write(tmp_path / "validation.parquet", image=raw(2), label=["cow", None])
    images = open_images(tmp_path)
    validation = validation_of(tmp_path, images)
    assert list(validation.classes) == ["ant", "bee", "cow"]
    assert validation.labels.tolist() == [2, -1]
    with pytest.raises(ImageSourceError, match=r"the class 'cow' .* \(ant, bee\)"):
        relabelled(validation, ["ant", "bee"])
