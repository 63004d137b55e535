"""Folders of every shape open as images with keys, labels and a fingerprint."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import hostile
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_sources import fill, same, structs, write
from PIL import Image

from ssl_backbones.data import DecodePolicy, ImageSourceError, UnreadableImageError, decode, open_images
from ssl_backbones.data.formats import FORMATS, WAYS_OUT, formats, suffixes
from ssl_backbones.data.keys import PathKeys, RowKeys, fingerprint_by_sizes_of, fingerprint_of

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
        fingerprint_by_sizes_of(["a", "b"], zero, sizes),
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


@pytest.mark.parametrize("beside", ["b/", "b/notes.txt", "b/deep/", "b/.hidden.jpg"])
def test_a_folder_without_images_is_no_class_and_is_named(tmp_path, caplog, beside):
    (root := fill(tmp_path, "a/1.jpg", "c/2.jpg", ".cache/3.jpg", "b/")).joinpath("b/deep").mkdir()
    if not beside.endswith("/"):
        (root / beside).write_text("{}")
    images = open_images(root)
    assert images.classes == ["a", "c"]
    assert images.labels.tolist() == [0, 1]
    assert "no image in 'b'" in caplog.text


def test_one_folder_of_images_beside_one_without_is_no_class(tmp_path):
    assert open_images(fill(tmp_path, "all/1.jpg", "meta/")).labels is None


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
    hostile.leave(tmp_path / "latin-\udce9.jpg", hostile.jpeg())
    images = open_images(tmp_path)
    assert sorted(images.keys) == sorted([*NAMES, "latin-\udce9.jpg"])
    assert all(images[index].size == (48, 32) for index in range(len(images)))
    assert len(images.fingerprint) == 64
    json.dumps(list(images.keys))


def test_images_are_known_by_their_first_bytes_where_the_name_says_nothing(tmp_path, caplog):
    for name, form in zip("abcdefg", FORMATS, strict=True):
        (tmp_path / name).write_bytes(hostile.encode(hostile.noise(), form))
    for name in ("x.jpg.1", "y.JPEG.23", "z.jpg?width=640", "w.png~", "end."):
        (tmp_path / name).write_bytes(hostile.jpeg())
    for name in ("README", "text.jpg.2", "BMW", "P5 is a car", "empty"):
        (tmp_path / name).write_bytes(name.encode() if name != "empty" else b"")
    for name in ("a.jpg.1.txt", "b.jpg.json"):
        (tmp_path / name).write_bytes(hostile.jpeg())
    images = open_images(tmp_path)
    copies = ["w.png~", "x.jpg.1", "y.JPEG.23", "z.jpg?width=640"]
    assert images.keys[:] == ["a", "b", "c", "d", "e", "end.", "f", "g", *copies]
    assert all(images[index].mode == "RGB" for index in range(len(images)))
    assert "7 files are no images that can be read here: 4 without a suffix, 1 .2, 1 .json, 1 .txt" in caplog.text


@pytest.mark.parametrize(("suffix", "way_out"), sorted(WAYS_OUT.items()))
def test_what_is_not_looked_at_is_counted_with_a_way_out(tmp_path, caplog, suffix, way_out):
    fill(tmp_path, "1.jpg", "sub/")
    for name in (f"2{suffix.upper()}", f"sub/3{suffix}"):
        (tmp_path / name).write_bytes(b"\0")
    images = open_images(tmp_path)
    if suffix in suffixes():
        assert len(images) == 3
    else:
        assert len(images) == 1
        assert f"2 files are no images that can be read here: 2 {suffix} ({way_out})" in caplog.text
        (tmp_path / "1.jpg").unlink()
        with pytest.raises(ImageSourceError, match=r"there is no image .*; 2 files are no images"):
            open_images(tmp_path)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_newer_formats_are_read_where_they_can_be(tmp_path, kind, monkeypatch):
    if kind not in formats():
        pytest.skip(f"{kind} is not read here")
    suffix, name = {"AVIF": (".avif", "a"), "HEIF": (".HEIC", "a")}[kind]
    picture = Image.new("RGB", (40, 30), (200, 10, 10))
    for path in (tmp_path / f"1{suffix}", tmp_path / name):
        picture.save(path, kind)
    images = open_images(tmp_path)
    assert len(images) == 2
    assert all(np.abs(np.asarray(images[index], int) - (200, 10, 10)).max() < 9 for index in range(2))
    monkeypatch.setattr(decode, "formats", lambda: FORMATS)
    with pytest.raises(UnreadableImageError, match=f"it is {kind}, which is not read here: pip install"):
        images[0]


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
