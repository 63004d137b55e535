"""Images that cannot be opened, labelled or made a batch of are refused, in a sentence that says why."""

from __future__ import annotations

import inspect
import logging

import hostile
import pyarrow as pa
import pytest
from image_sources import fill, raw, structs, write

from ssl_backbones.data import (
    ImageFolder,
    Images,
    ImageSourceError,
    hub_dataset,
    open_images,
    require_batch,
    require_labels,
)
from ssl_backbones.data.parquet_in_memory import ParquetImages
from ssl_backbones.data.parquet_in_place import RowGroupImages
from ssl_backbones.data.tar import TarImages


def test_sources_that_are_none(tmp_path):
    empty = fill(tmp_path / "empty", "notes/")
    (tmp_path / "photo.jpg").write_bytes(hostile.jpeg())
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    write(tmp_path / "words.parquet", text=["a"], label=[1])
    write(tmp_path / "masks.parquet", mask=raw(1), depth=raw(1))
    write(tmp_path / "none.parquet", image=raw(0))
    write(tmp_path / "ids.parquet", image=raw(1), label=[10**15])
    for spec, says in {
        str(tmp_path / "nowhere"): r"nowhere' does not exist: give",
        "nowhere": r"'nowhere' does not exist: give",
        "": r"no images are named: give",
        str(tmp_path / "nowhere.parquet"): r"nowhere\.parquet' does not exist: give",
        str(tmp_path / "nowhere*.parquet"): r"nowhere\*\.parquet' does not exist: give",
        str(empty): r"there is no image in '.*empty' or below it: files ending in \.jpg, ",
        str(tmp_path / "photo.jpg"): r"photo\.jpg' is neither a folder nor a \.parquet or \.tar file: give",
        str(tmp_path / "torn.parquet"): r"torn\.parquet' cannot be read as parquet \(.*\): make",
        str(tmp_path / "words.parquet"): r"words\.parquet' has no column of images.*text \(string\), label \(int64\)",
        str(tmp_path / "masks.parquet"): r"masks\.parquet' may have images in mask, depth: name the one",
        str(tmp_path / "none.parquet"): r"there is no row in '.*none\.parquet'",
        str(tmp_path / "ids.parquet"): r"labels go up to 1000000000000000",
        str(
            tmp_path / "x-{0..1000000}.parquet"
        ): r"0\.\.1000000\}\.parquet' means more than 1,000,000 files: name fewer",
        str(tmp_path / "x-{3..0}.parquet"): r"x-\{3\.\.0\}\.parquet' means no file: let its ranges rise",
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
        ([0, 1, None], r"^k-NN needs a label for every image, and that of 'x\.parquet:2' is missing \(1 of 3"),
        (pa.array([0, 2**63 + 5, 1], pa.uint64()), r"that of 'x\.parquet:1' is -\d+, which is not one of 0 to 1"),
        ([0, -7, -7], r"that of 'x\.parquet:1' is -7, which is not one of 0 to 1 \(2 of 3"),
        ([0, 1, 2], r"that of 'x\.parquet:2' is 2, which is not one of 0 to 1"),
    ],
)
def test_the_first_wrong_label_is_named(tmp_path, label, says):
    with pytest.raises(ImageSourceError, match=says):
        require_labels(open_images(write(tmp_path / "x.parquet", ["a", "b"], image=raw(3), label=label)), "k-NN")


def test_labels_are_asked_for(tmp_path):
    assert require_labels(open_images(fill(tmp_path / "two", "a/1.jpg", "b/2.jpg")), "k-NN").tolist() == [0, 1]
    with pytest.raises(ImageSourceError, match=r"^k-NN needs labels, and these 2 images have none: put each class"):
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
    for kind in (ImageFolder, ParquetImages, RowGroupImages, TarImages, hub_dataset.HubImages):
        assert issubclass(kind, Images)
        assert not inspect.isabstract(kind)
        assert not kind.__subclasses__()
        assert all(inspect.isabstract(base) for base in kind.__bases__)
