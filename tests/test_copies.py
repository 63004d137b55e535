"""Copies of training images among the validation images are found, whatever holds them."""

from __future__ import annotations

from pathlib import Path

import hostile
import pyarrow as pa
import pytest
from image_sources import fill, write

from ssl_backbones.data import hub_dataset, open_images, source
from ssl_backbones.data.copies import copies_among, copies_sentence


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
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(source, "HELD_IN_MEMORY", memory)
    images = open_images(kept(tmp_path / "train", jpegs([0, 1, 2, 3])))
    validation = open_images(asked(tmp_path / "val", jpegs([9, 2, 8, 0])))
    assert memory or kept is folder or isinstance(images, hub_dataset.HubImages)
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


def test_files_that_are_gone_or_empty_are_no_copies(tmp_path):
    images = open_images(fill(tmp_path / "train", "0.jpg", "1.jpg"))
    validation = open_images(folder(tmp_path / "val", [b"", hostile.jpeg(seed=0)]))
    (tmp_path / "train" / "1.jpg").write_bytes(b"")
    assert copies_among(validation, images) == [1]
