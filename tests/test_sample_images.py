"""The images that ship are whole, free, small, and counted in their README."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssl_backbones.data import open_images, require_labels, validation_of

FOLDER = Path(__file__).parents[1] / "training" / "sample_photos"
README = (FOLDER / "README.md").read_text()
TRAIN = open_images(FOLDER / "train.parquet")
VALIDATION = open_images(FOLDER / "validation.parquet")


def test_they_fit_into_eight_megabytes():
    size = sum(file.stat().st_size for file in FOLDER.glob("*.parquet"))
    assert size <= 8_000_000
    assert f"{size:,} bytes" in README


def test_the_readme_counts_every_class():
    for label, name in enumerate(TRAIN.classes):
        counts = [int((images.labels == label).sum()) for images in (TRAIN, VALIDATION)]
        assert f"| {name} | {counts[0]} | {counts[1]} |" in README
    assert f"| {len(TRAIN):,} |" in README
    assert f"| {len(VALIDATION):,} |" in README
    most = int(np.bincount(VALIDATION.labels).max())
    assert f"{most / len(VALIDATION):.1%}" in README


def test_the_readme_says_where_they_are_from_and_under_which_licence():
    assert "CC0 1.0" in README
    assert "github.com/alexeygrigorev/clothing-dataset-small" in README


@pytest.mark.parametrize("images", [TRAIN, VALIDATION], ids=["train", "validation"])
def test_every_image_is_readable_and_labelled(images):
    require_labels(images, "the sample")
    assert len(images.classes) == 10
    assert all(min(images[index].size) == 72 for index in range(len(images)))


def test_the_folder_opens_as_its_training_images_with_the_others_kept_out():
    images = open_images(FOLDER)
    assert images.fingerprint == TRAIN.fingerprint
    assert validation_of(FOLDER, images).fingerprint == VALIDATION.fingerprint


def test_no_image_is_in_both():
    contents = [{content.as_py() for content in images.column.rows} for images in (TRAIN, VALIDATION)]
    assert not contents[0] & contents[1]
    assert len(contents[0]) == len(TRAIN)
