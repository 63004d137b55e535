"""Splits of folders and parquet files into training and validation images."""

from __future__ import annotations

import shutil

import pytest
from image_sources import fill, raw, same, structs, write

from ssl_backbones.data import ImageSourceError, open_images, relabelled, unlabelled, validation_of
from ssl_backbones.data.splits import SPLITS, TRAIN, parts_of


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


def test_a_train_among_vehicles_is_a_class(tmp_path):
    images = open_images(fill(tmp_path, "train/1.jpg", "bus/2.jpg"))
    assert images.classes == ["bus", "train"]
    assert validation_of(tmp_path, images) is None


CLASSES = [f"{split}/{label}/{n}.jpg" for split in ("train", "val") for label in ("cat", "dog") for n in range(2)]


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ("annotations/a.json", "without images: annotations"),
        ("labels/", "without images: labels"),
        ("meta/deep/", "without images: meta"),
        ("unlabeled/0.jpg", "left out: unlabeled"),
        ("unlabelled/deep/0.jpg", "left out: unlabelled"),
        ("extra/0.jpg", "left out: extra"),
        ("bus/wheel/0.jpg", "left out: bus"),
        ("test/cat/0.jpg", "left out: test"),
    ],
)
def test_one_more_folder_beside_the_splits_changes_nothing_but_what_is_said(tmp_path, caplog, beside, said):
    fill(tmp_path, *CLASSES, beside.rpartition("/")[0] + "/" if not beside.endswith(".jpg") else beside)
    images = open_images(tmp_path)
    assert list(images.keys) == ["cat/0.jpg", "cat/1.jpg", "dog/0.jpg", "dog/1.jpg"]
    assert images.classes == ["cat", "dog"]
    assert [*validation_of(tmp_path, images).keys] == [*images.keys]
    assert validation_of(tmp_path, images).root == tmp_path / "val"
    assert "taking train" in caplog.text
    assert "val is for validation" in caplog.text
    assert said in caplog.text


LAYOUTS = {
    "flat": ["1.jpg", "2.jpg"],
    "classes": ["cat/1.jpg", "dog/2.jpg"],
    "train and val": CLASSES,
    "train and test": ["train/1.jpg", "train/2.jpg", "test_set/3.jpg"],
    "train alone": ["train/cat/1.jpg", "train/dog/2.jpg"],
    "train and unlabeled": ["train/1.jpg", "unlabeled/2.jpg"],
    "val alone": ["val/1.jpg", "cat/2.jpg"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_stray_image_changes_nothing_unsaid(tmp_path, caplog, layout):
    clean = open_images(fill(tmp_path / "clean", *LAYOUTS[layout]))
    caplog.clear()
    images = open_images(fill(tmp_path / "stray", *LAYOUTS[layout], "preview.png"))
    if layout in ("train and val", "train and test"):
        assert same(images, clean)
        assert "left out beside the folders: preview.png (move" in caplog.text
        kept = validation_of(tmp_path / "stray", images)
        assert kept is None or [*kept.keys] == [*validation_of(tmp_path / "clean", clean).keys]
    else:
        assert sorted(images.keys) == sorted([*LAYOUTS[layout], "preview.png"])
        assert images.labels is None
        assert (layout == "flat") or "holds images beside its folders" in caplog.text


@pytest.mark.parametrize("place", ["", "data/"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_stray_table_without_images_changes_nothing(tmp_path, caplog, layout, place):
    clean = open_images(fill(tmp_path / "clean", *LAYOUTS[layout]))
    write(fill(tmp_path / "stray", *LAYOUTS[layout]) / place / "x.parquet", key=["1.jpg"], embedding=[[0.5]])
    assert same(open_images(tmp_path / "stray"), clean)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_table_of_images_beside_images_is_taken_and_said(tmp_path, caplog, layout):
    write(fill(tmp_path, *LAYOUTS[layout]) / "x.parquet", image=structs(2))
    assert list(open_images(tmp_path).keys) == ["x.parquet:0", "x.parquet:1"]
    assert "holds images as well: taking x.parquet, not those (move" in caplog.text


@pytest.mark.parametrize("train", ["train", "Train", "train2017", "training_set", "train-images", "TRAINING"])
@pytest.mark.parametrize("kept", ["val", "Validation", "val2017", "test_set", "dev"])
def test_every_name_of_a_split_is_known(tmp_path, train, kept):
    fill(tmp_path, f"{train}/1.jpg", f"{train}/2.jpg", f"{kept}/3.jpg", "annotations/")
    images = open_images(tmp_path)
    assert list(images.keys) == ["1.jpg", "2.jpg"]
    assert images.labels is None
    assert open_images(tmp_path / kept).keys[:] == ["3.jpg"]


def test_of_several_years_the_last_with_its_own_validation(tmp_path):
    parts = parts_of(fill(tmp_path, "train2014/1.jpg", "train2017/2.jpg", "val2014/3.jpg", "val2017/4.jpg"))
    assert (parts.train.name, parts.kept_out.name) == ("train2017", "val2017")
    assert parts.left_out == ("train2014", "val2014")


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_is_no_class(tmp_path, caplog, name):
    fill(tmp_path, "cat/1.jpg", "dog/2.jpg", f"{name}/cow/3.jpg")
    images = open_images(tmp_path)
    if name in TRAIN:
        assert images.keys[:] == ["cow/3.jpg"]
    else:
        assert images.keys[:] == ["cat/1.jpg", "dog/2.jpg"]
        assert images.classes == ["cat", "dog"]
    assert "left out" in caplog.text


def test_splits_without_one_to_train_on_have_no_labels(tmp_path, caplog):
    assert open_images(fill(tmp_path / "a", "val/1.jpg", "test/2.jpg")).labels is None
    assert open_images(fill(tmp_path / "b", "unlabeled/1.jpg", "test/2.jpg")).keys[:] == ["1.jpg"]
    assert "left out: test" in caplog.text


def test_validation_images_of_a_single_class_have_its_label(tmp_path):
    fill(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "val/b/3.jpg", "val/b/4.jpg")
    assert validation_of(tmp_path, open_images(tmp_path)).labels.tolist() == [1, 1]


def test_parquet_files_of_unlabelled_images_are_taken_last(tmp_path):
    for name in ("unlabeled-0", "test-0"):
        write(tmp_path / f"{name}.parquet", image=structs(2))
    assert list(open_images(tmp_path).keys) == ["unlabeled-0.parquet:0", "unlabeled-0.parquet:1"]
    write(tmp_path / "train-0.parquet", image=structs(1))
    assert list(open_images(tmp_path).keys) == ["train-0.parquet:0"]


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


def test_a_class_missing_from_the_validation_images_leaves_the_others_their_numbers(tmp_path):
    write(tmp_path / "train.parquet", image=raw(3), label=["ant", "bee", "cow"])
    write(tmp_path / "validation.parquet", image=raw(2), label=["cow", None])
    images = open_images(tmp_path)
    validation = validation_of(tmp_path, images)
    assert list(validation.classes) == ["ant", "bee", "cow"]
    assert validation.labels.tolist() == [2, -1]
    with pytest.raises(ImageSourceError, match=r"the class 'cow' .* \(ant, bee\)"):
        relabelled(validation, ["ant", "bee"])


@pytest.mark.parametrize(
    "changed",
    [
        lambda root: validation_of(root, open_images(root)),
        lambda root: relabelled(open_images(root / "val"), ["c", "b", "a"]),
        lambda root: unlabelled(open_images(root / "val")),
    ],
    ids=["validation_of", "relabelled", "unlabelled"],
)
def test_images_with_other_labels_are_known_by_every_fingerprint_of_their_source(tmp_path, changed):
    root = fill(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "train/c/3.jpg", "val/a/4.jpg", "val/c/5.jpg")
    images, source = changed(root), open_images(root / "val")
    assert images.labels is None or images.labels.tolist() != source.labels.tolist()
    assert images.known_as(source.fingerprint)
    assert images.known_as(source.fingerprint_by_sizes)
    assert source.known_as(images.fingerprint_by_sizes)
