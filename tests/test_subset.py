"""A list of classes and a number of images held out divide any labelled source, the same in every run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from photo_sources import fill, raw, write
from runs import outcome, photo_folder, run, tiny

from ssl_backbones.data import ImageSourceError, open_images
from ssl_backbones.data.subset import hold_out, of_classes
from ssl_backbones.methods import BYOLConfig

NAMES = ("ant", "bee", "cow")


def tree(path: Path) -> Path:
    return fill(path / "tree", *[f"{name}/{number}.jpg" for number in range(4) for name in NAMES])


def table(path: Path) -> Path:
    return write(path / "train.parquet", image=raw(12), label=[name for name in NAMES for _ in range(4)])


@pytest.mark.parametrize("source", [tree, table])
def test_a_list_of_classes_takes_a_subset(tmp_path: Path, source) -> None:
    images = open_images(source(tmp_path))
    (tmp_path / "list.txt").write_text("cow\n\n ant \n")
    some = of_classes(images, tmp_path / "list.txt")
    assert list(some.classes) == ["ant", "cow"]
    assert len(some) == 8
    for row, key in enumerate(some.keys):
        assert some.classes[some.labels[row]] == images.classes[images.labels[list(images.keys).index(key)]]
    assert some.fingerprint != images.fingerprint
    for text, said in (("elk\ncow", r"'elk' and 0 more are no classes .* such as 'ant'"), (" ", "it names none")):
        (tmp_path / "list.txt").write_text(text)
        with pytest.raises(ImageSourceError, match=said):
            of_classes(images, tmp_path / "list.txt")
    with pytest.raises(ImageSourceError, match="cannot be read"):
        of_classes(images, tmp_path / "missing.txt")


@pytest.mark.parametrize("source", [tree, table])
def test_images_are_held_out_of_every_class(tmp_path: Path, source) -> None:
    images = open_images(source(tmp_path))
    rest, held = hold_out(images, 3)
    assert np.bincount(held.labels).tolist() == [3, 3, 3]
    assert np.bincount(rest.labels).tolist() == [1, 1, 1]
    assert sorted([*rest.keys, *held.keys]) == sorted(images.keys)
    assert list(hold_out(images, 3)[1].keys) == list(held.keys)
    with pytest.raises(ImageSourceError, match="'ant' has 4 images, and --hold_out 4 would leave none"):
        hold_out(images, 4)


def test_a_run_on_some_classes_with_images_held_out(tmp_path: Path) -> None:
    data = photo_folder(tmp_path / "data", 36, ("bag", "hat", "shoe"))
    (tmp_path / "two.txt").write_text("bag\nshoe\n")
    recipe = tiny(BYOLConfig, data, tmp_path / "run", classes=str(tmp_path / "two.txt"), hold_out=2, max_steps=1)
    results = outcome(run(recipe).path)["results"]
    assert (results["data"]["images"], results["validation"]["images"]) == (20, 4)
    names = (tmp_path / "run" / "held_out.txt").read_text().split()
    assert sorted(name.partition("/")[0] for name in names) == ["bag", "bag", "shoe", "shoe"]
