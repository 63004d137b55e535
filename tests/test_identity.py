"""Images are told apart by their content, whatever their names, labels and sizes; an index saves reading them again."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluations import evaluated
from PIL import Image
from test_tar import shards

from ssl_backbones.data import (
    Images,
    columns,
    digest_index,
    kept_arrays,
    open_images,
    parquet_in_place,
    source,
    tar,
    threads,
)
from ssl_backbones.data.digest_index import contents_of
from ssl_backbones.data.digests import BLOCK, MISSING, WHOLE, digest_of_bytes, digest_of_file
from ssl_backbones.data.images import ImageSourceError
from ssl_backbones.data.kept_arrays import place_of
from ssl_backbones.data.keys import PathKeys
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.cache import Caching, ImageCacheError, cached
from ssl_backbones.train.claiming import check_data

UNPACKED = {"bmp": "BMP", "tif": "TIFF", "ppm": "PPM"}


def noise(seed: int, kind: str, side: int = 24) -> bytes:
    levels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(levels).save(out, UNPACKED[kind])
    return out.getvalue()


def folder(path: Path, kind: str, seed: int, count: int = 24) -> Path:
    for at in range(count):
        place = path / "ab"[at % 2] / f"{at:03}.{kind}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(noise(1000 * seed + at, kind))
    return path


@pytest.mark.parametrize("kind", UNPACKED)
def test_equal_names_and_sizes_are_not_the_same_images(tmp_path: Path, kind: str) -> None:
    one, other = (open_images(folder(tmp_path / name, kind, seed)) for name, seed in (("train", 1), ("val", 2)))
    assert one.fingerprint_by_sizes == other.fingerprint_by_sizes  # what version 0.1 went by
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint == open_images(folder(tmp_path / "again", kind, 1)).fingerprint


@pytest.mark.parametrize("kind", UNPACKED)
@pytest.mark.parametrize("at", [0.3, 0.5, 0.7, 0.99])
def test_one_changed_pixel_of_an_unpacked_image_is_seen(tmp_path: Path, kind: str, at: float) -> None:
    content = bytearray(noise(1, kind, side=160))
    assert len(content) > 2 * WHOLE
    before = digest_of_bytes(bytes(content))
    (tmp_path / "x").write_bytes(content)
    assert digest_of_file(str(tmp_path / "x")) == before
    content[int(at * len(content))] ^= 1
    assert digest_of_bytes(bytes(content)) != before


@pytest.mark.parametrize("place", [0, 3, BLOCK - 1, 50_000, 99_999])
def test_blocks_of_a_packed_image_count(place: int) -> None:
    content = bytearray(b"\xff\xd8\xff" + np.random.default_rng(0).bytes(99_997))
    before = digest_of_bytes(bytes(content))
    content[place] ^= 8
    assert digest_of_bytes(bytes(content)) != before


def test_images_replaced_between_kill_and_resume_are_refused(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", "bmp", 1)
    images = open_images(data)
    check_data(images, images.fingerprint, 1, RunFolder(tmp_path))
    check_data(images, images.fingerprint_by_sizes, 1, RunFolder(tmp_path))  # as a run of version 0.1 has it
    folder(data, "bmp", 2)
    with pytest.raises(ImageSourceError, match=r"the images are not those that the run in .* began with"):
        check_data(open_images(data), images.fingerprint, 1, RunFolder(tmp_path))


def test_images_replaced_under_a_cache_are_noticed(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", "bmp", 1, count=96)
    how = Caching(tmp_path / "cache")
    cached(open_images(data), str(data), how)
    first = data / "a" / "002.bmp"
    first.write_bytes(noise(7, "bmp"))  # one of those that are not decoded to compare
    with pytest.raises(ImageCacheError, match=r"is not what the cache in .* was made of"):
        cached(open_images(data), str(data), how)


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, PathKeys]:
    """A folder of settled files that is worth an index, in an empty cache folder."""
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr(digest_index, "KEPT_FROM", 1)
    monkeypatch.setattr(kept_arrays, "SETTLED", -60_000_000_000)
    monkeypatch.setattr(digest_index, "COMPARED", 0)
    return folder(tmp_path / "data", "bmp", 1), PathKeys(open_images(folder(tmp_path / "data", "bmp", 1)).keys)


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read from now on."""
    seen: list[str] = []

    def watched(path: str) -> bytes:
        seen.append(os.path.basename(path))
        return digest_of_file(path)

    monkeypatch.setattr(digest_index, "digest_of_file", watched)
    return seen


def test_a_second_start_reads_what_changed(listed: tuple[Path, PathKeys], monkeypatch: pytest.MonkeyPatch) -> None:
    root, keys = listed
    first = contents_of(root, keys, "x")
    seen = reads(monkeypatch)
    assert np.array_equal(contents_of(root, keys, "x").digests, first.digests)
    assert seen == []
    state = (root / keys[3]).stat()
    (root / keys[3]).write_bytes(noise(5, "bmp"))
    os.utime(root / keys[3], ns=(state.st_atime_ns, state.st_mtime_ns))  # as copies that keep times have it
    changed = contents_of(root, keys, "x").digests
    assert seen == [os.path.basename(keys[3])]
    assert np.flatnonzero((changed != first.digests).any(axis=1)).tolist() == [3]
    some = PathKeys(keys[2:9])
    assert np.array_equal(contents_of(root, some, "x").digests, changed[2:9])
    assert len(seen) == 1


def test_a_file_that_changed_just_now_is_not_relied_on(
    listed: tuple[Path, PathKeys], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, keys = listed
    monkeypatch.setattr(kept_arrays, "SETTLED", 60_000_000_000)
    contents_of(root, keys, "x")
    seen = reads(monkeypatch)
    contents_of(root, keys, "x")
    assert len(seen) == len(keys)


@pytest.mark.parametrize("times", [1, 2])
def test_a_passing_error_does_not_become_the_content_of_a_file(
    listed: tuple[Path, PathKeys], times: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, keys = listed
    right = contents_of(root, keys, "another").digests
    seen = reads(monkeypatch)
    reading = digest_index.digest_of_file

    def failing(path: str) -> bytes:
        digest = reading(path)
        return MISSING if path.endswith(keys[3]) and seen.count(os.path.basename(keys[3])) <= times else digest

    monkeypatch.setattr(digest_index, "digest_of_file", failing)
    first = contents_of(root, keys, "x").digests
    assert np.flatnonzero((first != right).any(axis=1)).tolist() == [3] * (times == 2)
    assert (f"1 files in {root} are there and cannot be read" in capsys.readouterr().out) == (times == 2)
    assert np.array_equal(contents_of(root, keys, "x").digests, right)
    seen.clear()
    assert np.array_equal(contents_of(root, keys, "x").digests, right)
    assert seen == []


@pytest.mark.parametrize("threads", [1, 8])
def test_row_groups_are_read_once_and_one_at_a_time(
    listed: tuple[Path, PathKeys], tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pa.array([b"%5d" % at for at in range(3000)], pa.binary())
    pq.write_table(pa.table({"image": rows}), tmp_path / "x.parquet", row_group_size=300)
    images = parquet_in_place.RowGroupImages([tmp_path / "x.parquet"])
    if threads == 1:
        monkeypatch.setattr(parquet_in_place, "LARGEST", 300 * 13)
    started, at_once, running = [], [], []
    read = parquet_in_place.RowGroupImages.read

    def counted(self: parquet_in_place.RowGroupImages, group: int) -> pa.ChunkedArray:
        started.append(group)
        running.append(group)
        at_once.append(len(running))
        time.sleep(0.002)
        running.remove(group)
        return read(self, group)

    monkeypatch.setattr(parquet_in_place.RowGroupImages, "read", counted)
    if threads == 1:
        assert len(np.unique(digests_in(images), axis=0)) == 3000
    else:
        with ThreadPoolExecutor(threads) as pool:
            assert len(set(pool.map(images.encoded, range(3000)))) == 3000
    assert sorted(started) == list(range(10))
    assert max(at_once) == 1


def test_a_passing_error_does_not_become_the_content_of_a_shard(
    listed: tuple[Path, PathKeys], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = open_images(shards(tmp_path / "tars", [3, 2]))
    raw = tar.TarImages.raw
    with monkeypatch.context() as patch:
        patch.setattr(tar.TarImages, "raw", lambda self, at: None if at == 3 else raw(self, at))
        broken = images.whole_digests()
    right = open_images(tmp_path / "tars").whole_digests()
    assert broken is not None
    assert right is not None
    assert right.any(axis=1).all()
    assert np.flatnonzero((broken != right).any(axis=1)).tolist() == [3]


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "gone", "other", "link"])
def test_a_harmed_index_is_made_anew(
    listed: tuple[Path, PathKeys], harm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root, keys = listed
    first = contents_of(root, keys, "x")
    place = place_of("x")
    assert place is not None
    content = place.read_bytes()
    place.unlink()
    if harm == "link":
        (tmp_path / "kept").write_bytes(b"kept")
        place.symlink_to(tmp_path / "kept")
    elif harm != "gone":
        middle = len(content) - 40
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        place.write_bytes({"flip": flipped, "cut": content[:-9], "empty": b"", "other": b"\x08" * 300}[harm])
    seen = reads(monkeypatch)
    assert np.array_equal(contents_of(root, keys, "x").digests, first.digests)
    assert len(seen) >= len(keys)
    assert not place.is_symlink()
    assert np.array_equal(digest_index.read(place).digests, first.digests)
    assert harm != "link" or (tmp_path / "kept").read_bytes() == b"kept"


def test_an_index_that_says_something_else_of_its_files_is_not_believed(
    listed: tuple[Path, PathKeys], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, keys = listed
    first = contents_of(root, keys, "x")
    place = place_of("x")
    assert place is not None
    index = digest_index.read(place)
    digest_index.keep(place, replace(index, digests=index.digests + 1))
    monkeypatch.setattr(digest_index, "COMPARED", 3)
    assert np.array_equal(contents_of(root, keys, "x").digests, first.digests)


def table(path: Path, seed: int) -> Path:
    """Uncompressed, so that images of equal sizes make files of equal sizes."""
    images = [noise(1000 * seed + at, "bmp") for at in range(24)]
    pq.write_table(pa.table({"image": pa.array(images, pa.binary())}), path, compression="none", use_dictionary=False)
    return path


def digests_in(images: Images) -> np.ndarray:
    assert images.digests is not None
    return images.digests


def row_reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The digests of rows that are taken from now on."""
    seen: list[bytes] = []

    def watched(content: pa.Buffer, whole: bool = False) -> bytes:
        seen.append(digest_of_bytes(content, whole))
        return seen[-1]

    monkeypatch.setattr(columns, "digest_of_bytes", watched)
    monkeypatch.setattr(parquet_in_place, "digest_of_bytes", watched)
    return seen


@pytest.mark.parametrize("memory", [2**20, 0])
def test_rows_of_a_table_are_read_once_and_again_when_its_files_change(
    listed: tuple[Path, PathKeys], tmp_path: Path, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "HELD_IN_MEMORY", memory)
    monkeypatch.setattr(parquet_in_place, "COMPARED", 0)
    place = table(tmp_path / "x.parquet", 1)
    state, first = place.stat(), open_images(place)
    assert isinstance(first, parquet_in_place.RowGroupImages) != bool(memory)
    whole = digests_in(first)
    assert len({bytes(row) for row in whole}) == 24
    seen = row_reads(monkeypatch)
    again = open_images(place)
    assert (again.fingerprint, seen) == (first.fingerprint, [])
    for module in (digest_index, parquet_in_place):
        monkeypatch.setattr(module, "COMPARED", 3)
    assert np.array_equal(digests_in(open_images(place)), whole)
    assert len(seen) == 3
    table(place, 2)
    os.utime(place, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert place.stat().st_size == state.st_size
    assert (open_images(place).fingerprint_by_sizes == first.fingerprint_by_sizes) == bool(memory)
    assert open_images(place).fingerprint != first.fingerprint


@pytest.mark.parametrize("kind", UNPACKED)
def test_an_evaluation_does_not_take_training_features_for_those_of_the_validation(tmp_path: Path, kind: str) -> None:
    for part, seed in (("train", 1), ("val", 2)):
        folder(tmp_path / "data" / part, kind, seed, count=60)
    numbers: dict[str, Any] = {}
    for protocol in ("knn", "logistic"):
        results = evaluated(protocol, tmp_path / "data", tmp_path / protocol)
        assert results["data"]["fingerprint"] != results["validation"]["fingerprint"]
        assert results["data"]["fingerprint_by_sizes"] == results["validation"]["fingerprint_by_sizes"]
        numbers |= {name: number for name, number in results["numbers"].items() if number.get("of") == 60}
    assert {"k=1, T=0.07", "top-1"} <= set(numbers)
    for name, number in numbers.items():  # half are right by chance; all were, when they were the training images
        assert 15 <= number["correct"] <= 45, (name, number)


def test_starts_at_once_read_the_images_once(listed: tuple[Path, PathKeys], monkeypatch: pytest.MonkeyPatch) -> None:
    root, keys = listed
    place = place_of("x")
    assert place is not None
    seen = reads(monkeypatch)
    first: list[np.ndarray] = []

    @contextmanager
    def after_another(place: Path) -> Iterator[None]:
        monkeypatch.setattr(digest_index, "turn", turn)
        first.append(contents_of(root, keys, "x").digests)  # the process that had its turn before
        seen.clear()
        with turn(place):
            yield

    turn = digest_index.turn
    monkeypatch.setattr(digest_index, "turn", after_another)
    assert np.array_equal(contents_of(root, keys, "x").digests, first[0])
    assert seen == []


HOLD = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); print(); sys.stdin.read()"


def test_a_start_waits_for_another_and_says_so_but_not_for_ever(
    listed: tuple[Path, PathKeys], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, keys = listed
    place = place_of("x")
    assert place is not None
    place.parent.mkdir(parents=True)
    monkeypatch.setattr(kept_arrays, "PATIENCE", 0.2)
    monkeypatch.setattr(kept_arrays, "WAIT_AT_MOST", 0.6)
    words = [sys.executable, "-S", "-c", HOLD, str(place.with_suffix(".lock"))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        found = contents_of(root, keys, "x").digests
        other.kill()
    assert np.array_equal(found, contents_of(root, keys, "y").digests)
    assert "another process reads the same images: waiting for process" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_to_costs_the_next_start_alone(
    listed: tuple[Path, PathKeys], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root, keys = listed
    first = contents_of(root, keys, "x").digests
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "file"))
    assert np.array_equal(contents_of(root, keys, "x").digests, first)
    assert "cannot be written (Not a directory): the next start reads all images again" in caplog.text


def test_reading_that_takes_long_is_told(
    listed: tuple[Path, PathKeys], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, keys = listed
    monkeypatch.setattr(threads, "PATIENCE", -1.0)
    contents_of(root, keys, "x")
    said = capsys.readouterr().out
    assert f"{len(keys)} of {len(keys)} images in {root} read for their digests" in said
