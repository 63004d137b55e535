"""Folders, parquet files and Hub datasets of every shape open as the same thing, or say in a sentence why not."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import sys
from pathlib import Path

import hostile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_backbones.data import (
    DecodePolicy,
    ImageFolder,
    Images,
    ImageSourceError,
    UnreadableImageError,
    hub_dataset,
    open_images,
    relabelled,
    require_batch,
    require_labels,
    source,
    validation_of,
)
from ssl_backbones.data.keys import PathKeys, RowKeys, fingerprint_of
from ssl_backbones.data.parquet import ParquetImages


def fill(root: Path, *paths: str) -> Path:
    """A folder with a different photo at each path; a path that ends in a slash is an empty folder."""
    for number, path in enumerate(paths):
        if path.endswith("/"):
            (root / path).mkdir(parents=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(hostile.photo(seed=number))
    return root


def structs(count: int, seed: int = 0) -> pa.Array:
    """Photos (N,) as `datasets` keeps them."""
    rows = [{"bytes": hostile.photo(seed=seed + row), "path": f"{row}.jpg"} for row in range(count)]
    return pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))


def raw(count: int, seed: int = 0) -> pa.Array:
    return pa.array([hostile.photo(seed=seed + row) for row in range(count)], pa.binary())


def write(file: Path, classes: list[str] | None = None, **columns) -> Path:
    """A parquet file of the columns, with class names for `label` where they are given."""
    table = pa.table(columns)
    if classes:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": classes}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=2)
    return file


def same(one: Images, other: Images) -> bool:
    """Whether two collections hold the same names, labels and photos."""
    labels = [images.labels.tolist() if images.labels is not None else None for images in (one, other)]
    return (
        list(one.keys) == list(other.keys)
        and labels[0] == labels[1]
        and list(one.classes) == list(other.classes)
        and one.fingerprint == other.fingerprint
        and all(np.array_equal(np.asarray(one[i]), np.asarray(other[i])) for i in range(len(one)))
    )


# Keys


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"))))
def test_path_keys_are_the_list_they_were_made_of(paths):
    keys = PathKeys(paths)
    assert list(keys) == paths
    assert keys[:2] == paths[:2]
    assert keys[::-1] == paths[::-1]
    assert list(pickle.loads(pickle.dumps(keys))) == paths
    with pytest.raises(IndexError):
        keys[len(paths)]


@given(st.lists(st.integers(0, 4)))
def test_row_keys_count_rows_in_each_table(counts):
    names = [f"t{number}" for number in range(len(counts))]
    assert list(RowKeys(names, counts)) == [
        f"{name}:{row}" for name, n in zip(names, counts, strict=True) for row in range(n)
    ]


def test_the_fingerprint_tells_keys_labels_and_sizes_apart():
    zero, one, sizes = np.array([0, 0]), np.array([0, 1]), np.array([5, 6])
    prints = [
        fingerprint_of(["a", "b"], zero, sizes),
        fingerprint_of(["a", "c"], zero, sizes),
        fingerprint_of(["ab", ""], zero, sizes),
        fingerprint_of(["a", "b"], one, sizes),
        fingerprint_of(["a", "b"], None, sizes),
        fingerprint_of(["a", "b"], zero, sizes + 1),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint_of(["a", "b"], zero.astype(np.int32), sizes) == prints[0]
    assert all(len(text) == 64 for text in prints)


# Folders


def test_class_folders_are_labels_however_deep_the_images_lie(tmp_path):
    images = open_images(fill(tmp_path, "dog/1.JPG", "cat/a/b/2.jpeg", "cat/3.jpg", "dog/notes.txt", "dog/.hidden.jpg"))
    assert list(images.keys) == ["cat/3.jpg", "cat/a/b/2.jpeg", "dog/1.JPG"]
    assert images.classes == ["cat", "dog"]
    assert images.labels.tolist() == [0, 0, 1]
    assert images.labels.dtype == np.int64
    assert images[2].size == (48, 32)


@pytest.mark.parametrize(
    "paths",
    [
        pytest.param(["1.jpg", "2.jpg"], id="flat"),
        pytest.param(["1.jpg", "cat/2.jpg", "dog/3.jpg"], id="an image beside the folders"),
        pytest.param(["all/1.jpg", "all/2.jpg"], id="one folder"),
        pytest.param(["all/cat/1.jpg", "all/dog/2.jpg"], id="one folder of folders"),
    ],
)
def test_other_folders_have_no_labels(tmp_path, paths):
    images = open_images(fill(tmp_path, *paths))
    assert list(images.keys) == paths
    assert images.labels is None
    assert list(images.classes) == []


def test_an_empty_class_keeps_its_place_and_is_named(tmp_path, caplog):
    images = open_images(fill(tmp_path, "a/1.jpg", "b/", "c/2.jpg", ".cache/3.jpg"))
    assert images.classes == ["a", "b", "c"]
    assert images.labels.tolist() == [0, 2]
    assert "no image in 'b'" in caplog.text


NAMES = [
    "ключ 1.jpg",
    "写真.jpg",
    "with\nnewline.jpg",
    "é.jpg",
    "e\u0301.jpg",
    "a:b;c'd\".jpg",
    "<img src=x>.jpg",
    " .jpg",
]


def test_names_in_every_script_and_none_at_all(tmp_path):
    fill(tmp_path, *NAMES)
    with open(os.fsencode(tmp_path) + b"/latin-\xe9.jpg", "wb") as file:
        file.write(hostile.photo())
    images = open_images(tmp_path)
    assert sorted(images.keys) == sorted([*NAMES, "latin-\udce9.jpg"])
    assert all(images[index].size == (48, 32) for index in range(len(images)))
    assert len(images.fingerprint) == 64
    json.dumps(list(images.keys))


def test_circles_of_links_end_and_other_links_are_followed(tmp_path):
    root = fill(tmp_path / "root", "a/1.jpg", "b/2.jpg")
    fill(tmp_path / "outside", "3.jpg")
    (root / "a" / "up").symlink_to("..")
    (root / "a" / "self.jpg").symlink_to("self.jpg")
    (root / "b" / "to a").symlink_to("../a")
    (root / "c").symlink_to(tmp_path / "outside")
    (root / "c" / "lost.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(root / "a" / "pipe.jpg")
    images = open_images(root)
    assert {"a/1.jpg", "b/2.jpg", "b/to a/1.jpg", "c/3.jpg", "c/lost.jpg", "a/self.jpg"} <= set(images.keys)
    assert "a/pipe.jpg" not in images.keys
    assert len(images) < 20
    with pytest.raises(UnreadableImageError, match=r"c/lost\.jpg"):
        images[list(images.keys).index("c/lost.jpg")]
    assert len(images.fingerprint) == 64


def test_a_copy_of_a_folder_has_its_fingerprint_and_a_changed_one_has_not(tmp_path):
    one = fill(tmp_path / "one", "a/1.jpg", "b/2.jpg", "b/3.jpg")
    two = Path(shutil.copytree(one, tmp_path / "elsewhere" / "two"))
    assert same(open_images(one), open_images(two))
    assert same(open_images(one), pickle.loads(pickle.dumps(open_images(one))))
    (two / "b" / "3.jpg").write_bytes(b"shorter")
    assert open_images(one).fingerprint != open_images(two).fingerprint


def test_an_unreadable_file_of_a_folder_is_named_by_its_path(tmp_path):
    fill(tmp_path, "1.jpg").joinpath("2.jpg").write_bytes(b"<html>")
    with pytest.raises(UnreadableImageError, match=r"/2\.jpg' cannot be read: .*b'<html>'"):
        open_images(tmp_path)[1]


def test_the_policy_reaches_the_decoder(tmp_path):
    file = write(tmp_path / "x.parquet", image=structs(1))
    for images in (open_images(fill(tmp_path / "f", "1.jpg"), DecodePolicy(9)), open_images(file, DecodePolicy(9))):
        with pytest.raises(UnreadableImageError, match="more than the 9 allowed"):
            images[0]


def test_a_million_paths_pickle_into_little_more_than_their_letters(tmp_path):
    keys = PathKeys(f"n{number // 1300:08d}/n_{number:08d}.JPEG" for number in range(20_000))
    assert len(pickle.dumps(keys)) < 20_000 * (24 + 10)


# Splits


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


# Parquet


@pytest.mark.parametrize(
    "photos", [structs, raw, lambda n: raw(n).cast(pa.large_binary())], ids=["struct", "raw", "large"]
)
@pytest.mark.parametrize(
    ("label", "classes", "names", "numbers"),
    [
        pytest.param([2, 0, 1], ["a", "b", "c"], ["a", "b", "c"], [2, 0, 1], id="named"),
        pytest.param([2, 0, -1], ["a", "b", "c"], ["a", "b", "c"], [2, 0, -1], id="one missing"),
        pytest.param([2, 0, 2], None, ["0", "1", "2"], [2, 0, 2], id="numbers"),
        pytest.param([2, None, 2], None, ["0", "1", "2"], [2, -1, 2], id="null"),
        pytest.param(["b", "a", "b"], None, ["a", "b"], [1, 0, 1], id="strings"),
        pytest.param(pa.array(["b", "a", "b"]).dictionary_encode(), None, ["a", "b"], [1, 0, 1], id="categories"),
        pytest.param([-1, -1, -1], ["a", "b"], [], None, id="all missing"),
        pytest.param([0.5, 0.1, 0.2], None, [], None, id="not labels"),
    ],
)
def test_columns_of_parquet(tmp_path, photos, label, classes, names, numbers):
    images = open_images(write(tmp_path / "x.parquet", classes, image=photos(3), label=label, height=[1, 2, 3]))
    assert list(images.classes) == names
    assert (images.labels is None) == (numbers is None)
    assert images.labels is None or images.labels.tolist() == numbers
    assert [images[index].size for index in (0, 2, -1)] == [(48, 32)] * 3
    assert np.array_equal(np.asarray(images[-1]), np.asarray(images[2]))
    assert same(images, pickle.loads(pickle.dumps(images)))
    assert len(pickle.dumps(images)) < 2500, "the photos stay behind"


def test_the_column_is_found_by_kind_and_then_by_name(tmp_path):
    assert ParquetImages([write(tmp_path / "a.parquet", scan=raw(2), note=["x", "y"])]).image == "scan"
    two = ParquetImages([write(tmp_path / "b.parquet", mask=raw(2), image=raw(2), objects=[1, 2])])
    assert two.image == "image"
    assert two.labels is None
    cifar = {"fine_label": [5, 6], "coarse_label": [1, 2]}
    assert ParquetImages([write(tmp_path / "c.parquet", img=structs(2), **cifar)]).labels.tolist() == [5, 6]


def test_a_row_without_a_photo_is_unreadable_and_named(tmp_path):
    rows = pa.array([{"bytes": hostile.photo(), "path": None}, {"bytes": None, "path": "/etc/passwd"}, None])
    images = open_images(write(tmp_path / "x.parquet", image=rows))
    for row in (1, 2):
        with pytest.raises(UnreadableImageError, match=rf"'x\.parquet:{row}' cannot be read: its row holds no image"):
            images[row]


def test_parquet_has_one_fingerprint_wherever_it_lies(tmp_path):
    one = write(tmp_path / "one" / "train.parquet", ["a", "b"], image=structs(3), label=[0, 1, 0])
    two = Path(shutil.copytree(one.parent, tmp_path / "two")) / "train.parquet"
    assert open_images(one).fingerprint == open_images(two).fingerprint == open_images(two.parent).fingerprint
    write(two, ["a", "b"], image=structs(3), label=[0, 1, 1])
    assert open_images(one).fingerprint != open_images(two).fingerprint


def test_large_parquet_is_memory_mapped_and_reads_alike(tmp_path, monkeypatch):
    file = write(tmp_path / "train.parquet", ["a", "b"], image=structs(5), label=[0, 1, 0, 1, 1])
    small = open_images(file)
    monkeypatch.setattr(source, "HELD_IN_MEMORY", 0)
    large = open_images(mapped(monkeypatch, tmp_path, file))
    assert isinstance(large, hub_dataset.HubImages)
    assert list(large.keys) == [f"train:{row}" for row in range(5)]
    assert large.labels.tolist() == small.labels.tolist()
    assert large.classes == small.classes
    assert all(np.array_equal(np.asarray(large[i]), np.asarray(small[i])) for i in range(-1, 5))
    assert same(large, pickle.loads(pickle.dumps(large)))
    assert len(pickle.dumps(large)) < 10_000


def mapped(monkeypatch, tmp_path: Path, file: Path) -> Path:
    """The file, once `datasets` has been told to keep its cache in the test's own folder."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return file


# Hub


def test_a_hub_dataset_is_decoded_by_us(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    rows = [hostile.turned(6), hostile.sixteen_bits("PNG"), b"<html>"]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    table = pa.table({"image": [{"bytes": row, "path": None} for row in rows], "label": [0, 1, 1]})
    splits = {name: datasets.Dataset(table, split=name).cast(features) for name in ("train", "test")}
    asked = []

    def load_dataset(name: str, split: str) -> datasets.Dataset:
        asked.append((name, split))
        return splits[split]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name: list(splits))
    images = open_images("org/photos")
    assert images.keys[1] == "train:1"
    assert images.classes == ["a", "b"]
    assert np.abs(np.asarray(images[0]).astype(int) - hostile.quarters()).max() <= 2
    assert np.array_equal(np.asarray(images[1])[..., 0], hostile.ramp())
    with pytest.raises(UnreadableImageError, match="'train:2' cannot be read"):
        images[2]
    assert validation_of("org/photos", images).keys[0] == "test:0"
    assert validation_of("org/photos:test", images) is None
    assert asked == [("org/photos", "train"), ("org/photos", "test")]


def test_what_the_hub_cannot_give_is_one_sentence(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def fail(*_, **__):
        raise ConnectionError("Couldn't reach 'data/train'\n on the Hub (offline).")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(
        ImageSourceError, match=r"'data/train' is no path here, .*Couldn't reach .* \(offline\)\): check"
    ):
        open_images("data/train")


@pytest.mark.parametrize("module", ["datasets", "pyarrow"])
def test_a_missing_extra_is_named(module, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    spec = write(tmp_path / "x.parquet", image=raw(1)) if module == "pyarrow" else "org/photos"
    with pytest.raises(ImageSourceError, match=rf"{module} is not installed: pip install 'ssl-backbones\[train\]'"):
        open_images(spec)


# What is refused


def test_sources_that_are_none(tmp_path):
    empty = fill(tmp_path / "empty", "notes/")
    (tmp_path / "photo.jpg").write_bytes(hostile.photo())
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    write(tmp_path / "words.parquet", text=["a"], label=[1])
    write(tmp_path / "masks.parquet", mask=raw(1), depth=raw(1))
    write(tmp_path / "none.parquet", image=raw(0))
    write(tmp_path / "ids.parquet", image=raw(1), label=[10**15])
    for spec, says in {
        str(tmp_path / "nowhere"): r"nowhere' does not exist: give",
        "nowhere": r"'nowhere' does not exist: give",
        "": r"no photos are named: give",
        str(tmp_path / "nowhere.parquet"): r"nowhere\.parquet' does not exist: give",
        str(tmp_path / "nowhere*.parquet"): r"nowhere\*\.parquet' does not exist: give",
        str(empty): r"there is no image in '.*empty' or below it: files ending in \.jpg, ",
        str(tmp_path / "photo.jpg"): r"photo\.jpg' is neither a folder nor a \.parquet file: give",
        str(tmp_path / "torn.parquet"): r"torn\.parquet' cannot be read as parquet \(.*\): make",
        str(tmp_path / "words.parquet"): r"words\.parquet' has no column of images.*text \(string\), label \(int64\)",
        str(tmp_path / "masks.parquet"): r"masks\.parquet' may have photos in mask, depth: name the one",
        str(tmp_path / "none.parquet"): r"there is no row in '.*none\.parquet'",
        str(tmp_path / "ids.parquet"): r"labels go up to 1000000000000000",
    }.items():
        with pytest.raises(ImageSourceError, match=says) as caught:
            open_images(spec)
        assert "\n" not in str(caught.value)
    with pytest.raises(ImageSourceError, match=r"is not a list of \.parquet files"):
        open_images([tmp_path, tmp_path])


def test_parquet_files_that_are_not_alike_are_not_read_together(tmp_path):
    first = write(tmp_path / "a.parquet", ["x", "y"], image=structs(1), label=[0])
    for second, says in (
        (
            write(tmp_path / "b.parquet", ["x", "y"], image=raw(1), label=[0]),
            r"'image' is struct.* and binary in .*b\.parquet",
        ),
        (write(tmp_path / "c.parquet", image=structs(1)), r"'label' is int64 in .* and missing in .*c\.parquet"),
        (
            write(tmp_path / "d.parquet", ["y", "x"], image=structs(1), label=[0]),
            r"the classes of 'label' in .*d\.parquet",
        ),
    ):
        with pytest.raises(ImageSourceError, match=says):
            open_images([first, second])


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ([0, 1, None], r"^k-NN needs a label for every photo, and that of 'x\.parquet:2' is missing \(1 of 3"),
        ([0, -7, -7], r"that of 'x\.parquet:1' is -7, which is not one of 0 to 1 \(2 of 3"),
        ([0, 1, 2], r"that of 'x\.parquet:2' is 2, which is not one of 0 to 1"),
    ],
)
def test_the_first_wrong_label_is_named(tmp_path, label, says):
    with pytest.raises(ImageSourceError, match=says):
        require_labels(open_images(write(tmp_path / "x.parquet", ["a", "b"], image=raw(3), label=label)), "k-NN")


def test_labels_are_asked_for(tmp_path):
    assert require_labels(open_images(fill(tmp_path / "two", "a/1.jpg", "b/2.jpg")), "k-NN").tolist() == [0, 1]
    with pytest.raises(ImageSourceError, match=r"^k-NN needs labels, and these 2 photos have none: put each class"):
        require_labels(open_images(fill(tmp_path / "flat", "1.jpg", "2.jpg")), "k-NN")
    with pytest.raises(ImageSourceError, match="needs at least two classes, and the only one is 'a'"):
        require_labels(open_images(write(tmp_path / "x.parquet", image=raw(2), label=["a", "a"])), "k-NN")


def test_a_batch_is_asked_for(tmp_path):
    images = open_images(fill(tmp_path, *[f"{number}.jpg" for number in range(12)]))
    require_batch(images, 12)
    with pytest.raises(
        ImageSourceError, match=r"^12 images are fewer than the batch of 256: set the batch size to at most 12"
    ):
        require_batch(images, 256)


def test_images_are_final_and_logged_by_name(caplog):
    assert logging.getLogger("ssl_backbones.data.folder").name in ImageFolder.__module__
    for kind in (ImageFolder, ParquetImages, hub_dataset.HubImages):
        assert kind.__bases__ == (Images,)
