"""Images that were changed where their fingerprint does not look: nothing that was kept of them is used again."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from small_methods import SMALL
from test_imports import MODULES

import ssl_backbones.evaluate.detection.annotations as annotated
from ssl_backbones.data import Images, open_images, source, subset
from ssl_backbones.data.digests import BLOCK, WHOLE
from ssl_backbones.data.subset import Subset
from ssl_backbones.evaluate.features import Extraction, features_of
from ssl_backbones.evaluate.model import open_model
from ssl_backbones.models.kept_features import keep_features
from ssl_backbones.models.teacher import Teacher, TeacherError
from ssl_backbones.train.cache import Caching, ImageCacheError, cached

COUNT, CHANGED = 6, 3


def content(seed: int) -> bytearray:
    """A JPEG of noise, of which digests cover three blocks."""
    levels = np.random.default_rng(seed).integers(0, 256, (160, 160, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(levels).save(out, "JPEG", quality=90)
    assert len(out.getvalue()) > WHOLE
    return bytearray(out.getvalue())


def contents(changed: bool) -> list[bytes]:
    """The images, one of them with other bytes between the blocks if it is to be changed."""
    found = [content(seed) for seed in range(COUNT)]
    if changed:
        at = slice(BLOCK + 100, BLOCK + 140)
        found[CHANGED][at] = bytes(byte ^ 0x55 if byte not in (0xFF, 0xAA) else byte for byte in found[CHANGED][at])
    return [bytes(each) for each in found]


def write_folder(place: Path, changed: bool) -> None:
    place.mkdir(exist_ok=True)
    for at, image in enumerate(contents(changed)):
        (place / f"{at}.jpg").write_bytes(image)


def write_table(place: Path, changed: bool) -> None:
    rows = pa.array(contents(changed), pa.binary())
    pq.write_table(pa.table({"image": rows}), place, compression="none", use_dictionary=False)


def write_names(place: Path, changed: bool) -> None:
    """Rows of a path and no bytes."""
    write_folder(place.with_suffix(""), changed)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [{"bytes": None, "path": str(place.with_suffix("") / f"{at}.jpg")} for at in range(COUNT)]
    pq.write_table(pa.table({"image": pa.array(rows, kind)}), place)


def write_shard(place: Path, changed: bool) -> None:
    with tarfile.open(place, "w") as archive:
        for at, image in enumerate(contents(changed)):
            member = tarfile.TarInfo(f"{at}.jpg")
            member.size = len(image)
            archive.addfile(member, io.BytesIO(image))


def some(place: Path) -> Images:
    return Subset(open_images(str(place)), np.array([0, CHANGED, 5]))


def listed(place: Path) -> Images:
    return annotated.ListedImages(place, [f"{at}.jpg" for at in range(COUNT)])


Write = Callable[[Path, bool], None]
SOURCES: dict[str, tuple[str, Write, Callable[[Path], Images], int]] = {
    "folder": ("x", write_folder, lambda place: open_images(str(place)), 2**20),
    "table in memory": ("x.parquet", write_table, lambda place: open_images(str(place)), 2**20),
    "mapped table": ("x.parquet", write_table, lambda place: open_images(str(place)), 0),
    "names in a table": ("x.parquet", write_names, lambda place: open_images(str(place)), 2**20),
    "shard": ("x.tar", write_shard, lambda place: open_images(str(place)), 2**20),
    "some of a folder": ("x", write_folder, some, 2**20),
    "list": ("x", write_folder, listed, 2**20),
}


@pytest.fixture(params=SOURCES)
def begin(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], Images]:
    """A function that writes the images, changed or as they were, and opens them."""
    name, write, opened, memory = SOURCES[request.param]
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(source, "HELD_IN_MEMORY", memory)

    def images(changed: bool) -> Images:
        write(tmp_path / name, changed)
        return opened(tmp_path / name)

    return images


def test_every_byte_counts_in_what_is_kept(begin: Callable[[bool], Images]) -> None:
    seen, named = [], set()
    for changed in (False, True, False):
        images = begin(changed)
        named.add(images.fingerprint)
        seen.append(images.content_digest)
    assert len(named) == 1  # by three blocks of each
    assert None not in seen
    assert seen[0] == seen[2] != seen[1]


def test_features_are_made_anew(
    begin: Callable[[bool], Images], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = open_model("resnet8", torch.device("cpu"), size=32, random=True)
    how = Extraction(tmp_path / "features")
    features_of(model, begin(False), how)
    features_of(model, begin(False), how)
    assert "not used" not in capsys.readouterr().out
    after = features_of(model, begin(True), how)
    assert "it holds the features of images that differ in some bytes" in capsys.readouterr().out
    assert torch.equal(after.rows, features_of(model, begin(True), Extraction()).rows)


def test_a_small_part_is_known_by_its_own_bytes(
    begin: Callable[[bool], Images], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what looks at a few of many images, as a forecast does, reads no others."""
    images = begin(False)
    whole = images.whole_digests()
    assert whole is not None
    monkeypatch.setattr(images, "whole_digests", lambda: pytest.fail("all images were read"))
    few = Subset(images, np.array([2, 0]))
    np.testing.assert_array_equal(few.whole_digests(), whole[few.rows])
    how = Extraction(tmp_path / "features")
    features_of(open_model("resnet8", torch.device("cpu"), size=32, random=True), images, how, only=few.rows)


def test_a_larger_part_is_known_by_what_is_kept_of_the_source(
    begin: Callable[[bool], Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = begin(False)
    monkeypatch.setattr(subset, "KEPT_FROM", 2)
    whole, part = images.whole_digests(), Subset(images, np.array([2, 0]))
    assert whole is not None
    monkeypatch.setattr(part, "raw", lambda row: pytest.fail("an image was read"))
    np.testing.assert_array_equal(part.whole_digests(), whole[part.rows])


def test_pixels_are_refused(begin: Callable[[bool], Images], tmp_path: Path) -> None:
    how = Caching(tmp_path / "pixels")
    made = cached(begin(False), "images", how)
    assert made.content_digest == begin(False).content_digest
    with pytest.raises(ImageCacheError, match=r"differ in bytes that their fingerprint does not cover\): delete "):
        cached(begin(True), "images", how)
    cached(begin(False), "images", how)


def test_what_a_teacher_saw_is_refused(begin: Callable[[bool], Images], tmp_path: Path) -> None:
    teacher = Teacher(SMALL["teacher"])
    keep_features(teacher, 32, begin(False), tmp_path / "kept")
    keep_features(teacher, 32, begin(False), tmp_path / "kept")
    with pytest.raises(TeacherError, match="are of other images"):
        keep_features(teacher, 32, begin(True), tmp_path / "kept")


for module in MODULES:  # or a source of images would be left out that nothing here asks for
    import_module(module)


def kinds(base: type[Images]) -> list[type[Images]]:
    return [kind for below in base.__subclasses__() for kind in (below, *kinds(below))]


@pytest.mark.parametrize("kind", [kind for kind in kinds(Images) if kind.__module__.startswith("ssl_backbones")])
def test_every_source_tells_its_content(kind: type[Images]) -> None:
    """Those that are made of others, and base classes, are told by their parts."""
    told = kind.whole_digests is not Images.whole_digests
    assert told or kind.__name__ in ("CachedImages", "ResidentImages", "RowImages", "Scenes")
