"""Masks: read as they are stored, found for every image, and refused by name where they are no masks of it."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scenes import DrawnScenes, palette, parquet_folder, png, scene, voc_folder

from ssl_backbones.data import DecodePolicy, ImageSourceError, UnreadableImageError
from ssl_backbones.data.digests import digest_of_bytes
from ssl_backbones.data.keys import fingerprint_by_sizes_of, fingerprint_of
from ssl_backbones.evaluate.learning_rates import Division
from ssl_backbones.evaluate.segmentation.masks import decode_mask, open_scenes
from ssl_backbones.evaluate.segmentation.segment import divided
from ssl_backbones.evaluate.segmentation.survey import class_names, require_known, survey

MASK = scene(5)[1]


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return voc_folder(tmp_path / "voc")


@pytest.mark.parametrize(
    "stored",
    [
        encoded(palette(MASK)),
        encoded(palette(MASK), transparency=0),
        encoded(Image.fromarray(MASK)),
        encoded(Image.fromarray(MASK), "TIFF"),
        encoded(Image.fromarray(MASK.astype(np.uint16))),
    ],
    ids=["palette", "transparent", "grey", "tiff", "16 bits"],
)
def test_values_are_those_stored(stored: bytes) -> None:
    values = decode_mask(stored, "m.png")
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values, MASK)


def test_two_levels_are_two_classes() -> None:
    np.testing.assert_array_equal(decode_mask(encoded(Image.fromarray(MASK == 1)), "m.png"), MASK == 1)


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        (encoded(Image.fromarray(MASK), "JPEG"), "it is a JPEG"),
        (encoded(palette(MASK), "GIF"), "it is a GIF"),
        (encoded(palette(MASK).convert("RGB")), "its pixels are RGB: write class numbers"),
        (encoded(Image.fromarray(MASK.astype(np.uint16) * 2)), "its values go up to 510"),
        (encoded(palette(MASK))[:90], r"the mask m\.png cannot be read"),
        (b"", r"the mask m\.png cannot be read"),
        (b"not an image", r"the mask m\.png cannot be read"),
    ],
    ids=["jpeg", "gif", "colours", "too many", "torn", "empty", "text"],
)
def test_what_is_no_mask_is_refused_by_name(stored: bytes, why: str) -> None:
    with pytest.raises(UnreadableImageError, match=why) as error:
        decode_mask(stored, "m.png")
    assert "m.png" in str(error.value)


def test_a_mask_too_large_to_open_is_refused() -> None:
    with pytest.raises(UnreadableImageError, match="pixels are more than the 100 allowed"):
        decode_mask(png(MASK), "m.png", DecodePolicy(max_pixels=100))


def test_a_voc_folder_is_read_by_its_lists(voc: Path) -> None:
    train, validation = open_scenes(str(voc), "mask", ["train"]), open_scenes(str(voc), "mask", ["val"])
    assert list(train.keys) == [f"JPEGImages/p{number}.jpg" for number in range(10)]
    assert len(validation) == 5
    assert train.labels is None
    both = open_scenes(str(voc), "mask", ["val", "train", "val"])
    assert list(both.keys) == [*validation.keys, *train.keys]
    for number in range(10):
        image, mask = scene(number, 40 + number % 3, 32 + number % 5)
        np.testing.assert_array_equal(train.mask(number), mask)
        assert np.abs(np.asarray(train[number]).astype(int) - np.asarray(image)).mean() < 4


def test_masks_added_later_are_found_in_their_own_folder(voc: Path) -> None:
    (voc / "SegmentationClassAug").mkdir()
    shutil.move(voc / "SegmentationClass" / "p3.png", voc / "SegmentationClassAug" / "p3.png")
    (voc / "ImageSets/Segmentation/aug.txt").write_text("p3\n")
    assert "SegmentationClassAug" in open_scenes(str(voc), "mask", ["aug"]).mask_place(0)


def test_parquet_holds_the_same_scenes(tmp_path: Path) -> None:
    folder = parquet_folder(tmp_path / "parquet")
    train, validation = open_scenes(str(folder), "mask", []), open_scenes(str(folder), "mask", [], beside=True)
    assert (len(train), len(validation)) == (10, 5)
    for scenes, first in ((train, 0), (validation, 10)):
        for row in range(len(scenes)):
            number = first + row
            image, mask = scene(number, 40 + number % 3, 32 + number % 5)
            np.testing.assert_array_equal(scenes.mask(row), mask)
            np.testing.assert_array_equal(np.asarray(scenes[row]), np.asarray(image))
    other = open_scenes(str(folder), "mask_of_one", [])
    np.testing.assert_array_equal(other.mask(4), train.mask(4) == 1)
    assert len({train.fingerprint, validation.fingerprint, other.fingerprint}) == 3


@pytest.mark.parametrize("make", [voc_folder, parquet_folder])
def test_scenes_cross_to_a_worker_and_keep_their_fingerprint(tmp_path: Path, make: Any) -> None:
    folder = make(tmp_path / "data")
    scenes = open_scenes(str(folder), "mask", ["train"])
    copy = pickle.loads(pickle.dumps(scenes))
    np.testing.assert_array_equal(copy.mask(7), scenes.mask(7))
    assert np.array_equal(np.asarray(copy[7]), np.asarray(scenes[7]))
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert open_scenes(str(moved), "mask", ["train"]).fingerprint == scenes.fingerprint


@pytest.mark.parametrize("make", [voc_folder, parquet_folder])
def test_the_fingerprint_is_of_images_and_masks(tmp_path: Path, make: Any) -> None:
    folder = make(tmp_path / "data")
    scenes = open_scenes(str(folder), "mask", ["train"])
    if make is voc_folder:
        names = [*scenes.keys, *(f"SegmentationClass/p{number}.png" for number in range(10))]
        stored = [(folder / name).read_bytes() for name in names]
    else:
        names, rows = [*scenes.keys, "mask"], pq.read_table(folder / "train.parquet").to_pylist()
        stored = [row[column]["bytes"] for column in ("image", "mask") for row in rows]
    digests = np.stack([np.frombuffer(digest_of_bytes(each), np.uint8) for each in stored])
    assert scenes.fingerprint == fingerprint_of(names, None, digests)
    assert scenes.fingerprint_by_sizes == fingerprint_by_sizes_of(names, None, np.array([*map(len, stored)]))


def test_a_part_of_ignored_pixels_alone_is_refused() -> None:
    scenes = DrawnScenes(4)
    scenes.scenes[1:3] = [(image, np.full_like(mask, 255)) for image, mask in scenes.scenes[1:3]]
    learnt, kept = divided(scenes, Division(np.array([1, 2]), np.array([0, 1])))
    assert (len(learnt), len(kept)) == (2, 2)
    with pytest.raises(ImageSourceError, match=r"none of the 2 masks kept for .* such as 1\.png, holds a class"):
        divided(scenes, Division(np.array([0, 3]), np.array([1, 2])))


class TestRefusals:
    def test_no_mask(self, voc: Path) -> None:
        (voc / "SegmentationClass/p4.png").unlink()
        with pytest.raises(ImageSourceError, match=r"SegmentationClass/p4\.png', the mask of 'p4', does not exist"):
            open_scenes(str(voc), "mask", ["train"])

    def test_no_image(self, voc: Path) -> None:
        (voc / "JPEGImages/p4.jpg").unlink()
        with pytest.raises(ImageSourceError, match=r"JPEGImages/p4\.jpg', the image of 'p4', does not exist"):
            open_scenes(str(voc), "mask", ["train"])

    def test_no_list_and_an_empty_one(self, voc: Path) -> None:
        with pytest.raises(
            ImageSourceError, match=r"aug\.txt' does not exist: name others .*\(lists there: train, val\)"
        ):
            open_scenes(str(voc), "mask", ["train", "aug"])
        (voc / "ImageSets/Segmentation/val.txt").write_text("\n\n")
        with pytest.raises(ImageSourceError, match=r"val\.txt' names no image"):
            open_scenes(str(voc), "mask", ["val"])

    def test_no_masks_at_all(self, tmp_path: Path) -> None:
        for spec in (str(tmp_path), "", "org/name"):
            with pytest.raises(ImageSourceError, match="holds no images with masks"):
                open_scenes(spec, "mask", ["train"])
        with pytest.raises(ImageSourceError, match=r"none\.parquet' does not exist"):
            open_scenes(str(tmp_path / "none.parquet"), "mask", [])

    def test_no_such_column_and_an_empty_row(self, tmp_path: Path) -> None:
        folder = parquet_folder(tmp_path / "parquet")
        with pytest.raises(ImageSourceError, match=r"no column 'seg' of masks: choose one of image, mask, mask_of_one"):
            open_scenes(str(folder), "seg", [])
        table = pq.read_table(folder / "train.parquet")
        masks = pa.array([None if row == 3 else value for row, value in enumerate(table["mask_of_one"].to_pylist())])
        table = table.set_column(2, "mask_of_one", masks)
        pq.write_table(table, folder / "train.parquet")
        with pytest.raises(ImageSourceError, match=r"'mask_of_one' of 'train\.parquet:3' is empty: 1 rows"):
            open_scenes(str(folder), "mask_of_one", [])

    def test_no_validation(self, tmp_path: Path) -> None:
        folder = parquet_folder(tmp_path / "parquet")
        (folder / "validation.parquet").unlink()
        with pytest.raises(ImageSourceError, match="name images to be tested on with --validation"):
            open_scenes(str(folder), "mask", [], beside=True)

    def test_a_mask_of_another_size(self, voc: Path) -> None:
        palette(MASK[:, :-2]).save(voc / "SegmentationClass/p4.png")
        with pytest.raises(
            ImageSourceError,
            match=r"p4\.jpg' has 41 x 36 pixels, and its annotations in the masks of .* are for 38 x 32",
        ):
            survey(open_scenes(str(voc), "mask", ["train"]), "training", complete=False)

    def test_a_broken_mask_or_image(self, voc: Path) -> None:
        (voc / "JPEGImages/p2.jpg").write_bytes(b"torn")
        scenes = open_scenes(str(voc), "mask", ["train"])
        survey(scenes, "training", complete=False)
        with pytest.raises(ImageSourceError, match=r"p2\.jpg' cannot be read.*has to be mended, or left out"):
            survey(scenes, "validation", complete=True)
        (voc / "SegmentationClass/p4.png").write_bytes(b"torn")
        with pytest.raises(ImageSourceError, match=r"p4\.png cannot be read"):
            survey(scenes, "training", complete=False)

    def test_nothing_but_ignored_pixels(self) -> None:
        scenes = DrawnScenes(2)
        scenes.scenes = [(image, np.full_like(mask, 255)) for image, mask in scenes.scenes]
        with pytest.raises(ImageSourceError, match=r"none of the 2 training masks, such as 0\.png, holds a class"):
            survey(scenes, "training", complete=False)

    def test_more_classes_than_the_head(self) -> None:
        scenes = DrawnScenes(6)
        counts = survey(scenes, "training", complete=True)
        require_known(scenes, counts, 4)
        with pytest.raises(ImageSourceError, match=r"the mask \d\.png holds class 3, and the head tells the 3 classes"):
            require_known(scenes, counts, 3)


def test_a_survey_counts_every_pixel() -> None:
    scenes = DrawnScenes(7)
    counts = np.bincount(np.concatenate([mask.ravel() for _, mask in scenes.scenes]), minlength=256)
    np.testing.assert_array_equal(survey(scenes, "training", complete=True), counts)


class TestNames:
    counts = np.bincount([0, 0, 3, 255], minlength=256)

    def test_numbers_and_voc(self, tmp_path: Path) -> None:
        assert class_names(str(tmp_path), "", self.counts) == ["0", "1", "2", "3"]
        names = class_names(str(tmp_path), "voc", self.counts)
        assert (names[0], names[1], names[15], names[20]) == ("background", "aeroplane", "person", "tvmonitor")

    def test_a_file_beside_the_data(self, tmp_path: Path) -> None:
        (tmp_path / "classes.json").write_text(json.dumps({"1": "a", "0": "ground", "255": "ignored"}))
        assert class_names(str(tmp_path / "train.parquet"), "", self.counts) == ["ground", "a"]
        (tmp_path / "classes.json").write_text(json.dumps({"few": ["x", "y"], "many": {"0": "z", "1": "w", "2": "v"}}))
        assert class_names(str(tmp_path), "many", self.counts) == ["z", "w", "v"]
        assert class_names(str(tmp_path), "", self.counts) == ["0", "1", "2", "3"]
        with pytest.raises(ImageSourceError, match="no table of classes for 'other': choose one of few, many"):
            class_names(str(tmp_path), "other", self.counts)

    def test_a_file_named(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.json"
        path.write_text('["x", "y"]')
        assert class_names("anywhere", str(path), self.counts) == ["x", "y"]
        for table in ('["x", "x"]', '{"1": "x"}', '["x", ""]'):
            path.write_text(table)
            with pytest.raises(ImageSourceError, match="has to name the classes from 0 on"):
                class_names("anywhere", str(path), self.counts)
        path.write_text("{")
        with pytest.raises(ImageSourceError, match="it is no JSON"):
            class_names("anywhere", str(path), self.counts)
        with pytest.raises(ImageSourceError, match="does not exist: add it"):
            class_names("anywhere", str(tmp_path / "none.json"), self.counts)


def test_real_masks(shared_data: Path) -> None:
    scenes = open_scenes(str(shared_data / "voc_mini"), "mask_coco80", [])
    names = class_names(str(shared_data / "voc_mini"), "coco80_mask", np.zeros(256, int))
    assert (len(scenes), len(names), names[80]) == (147, 81, "toothbrush")
    assert scenes.mask(3).shape == scenes[3].size[::-1]
