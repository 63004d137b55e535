"""Parquet files and Hub datasets of every shape open as the same images."""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path

import hostile
import numpy as np
import pyarrow as pa
import pytest
from image_sources import fill, raw, same, structs, write

from ssl_backbones.data import (
    ImageSourceError,
    UnreadableImageError,
    hub_dataset,
    open_images,
    parquet_in_place,
    source,
    validation_of,
)
from ssl_backbones.data.decode import decode
from ssl_backbones.data.parquet_in_memory import ParquetImages
from ssl_backbones.data.parquet_in_place import RowGroupImages

# Parquet


@pytest.mark.parametrize(
    "column", [structs, raw, lambda n: raw(n).cast(pa.large_binary())], ids=["struct", "raw", "large"]
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
def test_columns_of_parquet(tmp_path, column, label, classes, names, numbers):
    images = open_images(write(tmp_path / "x.parquet", classes, image=column(3), label=label, height=[1, 2, 3]))
    assert list(images.classes) == names
    assert (images.labels is None) == (numbers is None)
    assert images.labels is None or images.labels.tolist() == numbers
    assert [images[index].size for index in (0, 2, -1)] == [(48, 32)] * 3
    assert np.array_equal(np.asarray(images[-1]), np.asarray(images[2]))
    assert same(images, pickle.loads(pickle.dumps(images)))
    assert len(pickle.dumps(images)) < 2500, "the images stay behind"


def test_the_column_is_found_by_kind_and_then_by_name(tmp_path):
    assert ParquetImages([write(tmp_path / "a.parquet", scan=raw(2), note=["x", "y"])]).image == "scan"
    two = ParquetImages([write(tmp_path / "b.parquet", mask=raw(2), image=raw(2), objects=[1, 2])])
    assert two.image == "image"
    assert two.labels is None
    cifar = {"fine_label": [5, 6], "coarse_label": [1, 2]}
    assert ParquetImages([write(tmp_path / "c.parquet", img=structs(2), **cifar)]).labels.tolist() == [5, 6]


def test_a_row_without_an_image_is_unreadable_and_named(tmp_path):
    rows = pa.array([{"bytes": hostile.jpeg(), "path": None}, {"bytes": None, "path": "/etc/passwd"}, None])
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


def test_large_parquet_is_read_in_place_by_row_groups_and_reads_alike(tmp_path, monkeypatch):
    for name, rows, labels in (("0.parquet", 11, [0, 1] * 5 + [1]), ("1.parquet", 2, [1, 0])):
        write(tmp_path / name, ["a", "b"], image=structs(rows), label=labels)
    small = open_images(tmp_path)
    monkeypatch.setattr(source, "HELD_IN_MEMORY", 0)
    large = open_images(tmp_path)
    assert isinstance(large, RowGroupImages)
    assert same(large, small)
    assert large.shards.ends.tolist() == [0, 2, 4, 6, 8, 10, 11, 13]
    monkeypatch.setattr(parquet_in_place, "LARGEST", large.largest)
    few = open_images(tmp_path)
    assert few.shards.window < 5
    assert [few[row].size for row in (*range(13), 0)] == [(48, 32)] * 14
    assert len(few.held.groups) < 5
    other = pickle.loads(pickle.dumps(few))
    assert same(other, small)
    assert len(pickle.dumps(few)) < 10_000
    write(tmp_path / "0.parquet", image=structs(1))
    with pytest.raises(ImageSourceError, match=r"0\.parquet' changed while it was in use: start the command again"):
        pickle.loads(pickle.dumps(few))[0]


def test_parquet_of_large_row_groups_is_memory_mapped_and_reads_alike(tmp_path, monkeypatch, caplog):
    file = write(tmp_path / "train.parquet", ["a", "b"], image=structs(5), label=[0, 1, 0, 1, 1])
    small = open_images(file)
    monkeypatch.setattr(source, "HELD_IN_MEMORY", 0)
    monkeypatch.setattr(parquet_in_place, "LARGEST", 0)
    large = open_images(mapped(monkeypatch, tmp_path, file))
    assert "it is laid out a second time in the cache of `datasets`" in caplog.text
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


@pytest.mark.parametrize("relative", [False, True])
def test_rows_of_a_path_and_no_bytes_are_read_from_the_disk_alike_in_memory_and_beyond(tmp_path, monkeypatch, relative):
    folder = fill(tmp_path / "data", "images/0.jpg", "images/1.jpg", "images/2.jpg")
    paths = [f"images/{row}.jpg" if relative else str(folder / "images" / f"{row}.jpg") for row in range(3)]
    paths += ["images/lost.jpg", None, "/etc/passwd"]
    rows = [{"bytes": None, "path": path} for path in paths] + [{"bytes": hostile.jpeg(seed=9), "path": "x.jpg"}]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    file = write(folder / "train.parquet", image=pa.array(rows, kind))
    small = open_images(file)
    monkeypatch.setattr(source, "HELD_IN_MEMORY", 0)
    large = open_images(mapped(monkeypatch, tmp_path, file))
    for images in (small, large, pickle.loads(pickle.dumps(small)), pickle.loads(pickle.dumps(large))):
        for row in range(3):
            assert np.array_equal(np.asarray(images[row]), np.asarray(decode(folder / "images" / f"{row}.jpg", "x")))
        assert images[6].size == (48, 32)
        for row, reason in ((3, "No such file"), (4, "its row holds no image"), (5, "its row holds no image")):
            with pytest.raises(UnreadableImageError, match=reason):
                images[row]
    before = small.fingerprint
    monkeypatch.setattr(source, "HELD_IN_MEMORY", 2**20)
    (folder / "images" / "1.jpg").write_bytes(b"another size")
    assert open_images(file).fingerprint != before


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
