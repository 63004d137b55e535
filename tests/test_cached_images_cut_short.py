"""However the making of a cache was cut short, it goes on; what is torn, or of a changed source, is refused."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import hostile
import pytest
from cache_sources import COUNT, alike, counted, kept, making, pixels_sha, same, small_blocks
from warm_processes import run_program

from ssl_backbones.data import (
    CachedImages,
    Images,
    ImageSourceError,
    open_images,
)
from ssl_backbones.train import cache_file
from ssl_backbones.train.cache import Caching, ImageCacheError, cached

__all__ = ["small_blocks"]


def test_a_killed_making_goes_on_after_its_last_whole_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = alike(tmp_path / "data")
    notes = tmp_path / "cache" / f".tmp-{kept(tmp_path).place('data').name}" / "blocks.jsonl"
    process = making(tmp_path / "data", tmp_path, hold=3)
    while not notes.exists() or notes.read_bytes().count(b"\n") < 4:
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not kept(tmp_path).place("data").exists()
    read = counted(images, monkeypatch)
    assert same(images, cached(images, "data", kept(tmp_path)))
    assert len(read) == COUNT - 12
    assert f"after 12 of {COUNT} images" in capsys.readouterr().out
    whole = Caching(tmp_path / "whole")
    cached(images, "data", whole)
    assert pixels_sha(whole.place("data")) == pixels_sha(kept(tmp_path).place("data"))
    assert not list((tmp_path / "cache").glob(".tmp-*"))


class Cut(Exception):
    """An error that ends the making without a word."""


def cut_after(blocks: int, images: Images, how: Caching) -> Path:
    """The unfinished folder of a making that ended after so many blocks."""
    with pytest.MonkeyPatch.context() as patch:
        add = cache_file.UnfinishedCache.add

        def until(self: Any, indices: range) -> None:
            if len(self.blocks) == blocks:
                raise Cut
            add(self, indices)

        patch.setattr(cache_file.UnfinishedCache, "add", until)
        with pytest.raises(Cut):
            cached(images, "data", how)
    return how.folder / f".tmp-{how.place('data').name}"


def append(path: Path, content: bytes) -> None:
    path.write_bytes(path.read_bytes() + content)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


LEFT = {
    "nothing more": (lambda folder: None, 12),
    "pixels that are not noted": (lambda folder: append(folder / "pixels.npy", b"\7" * 5000), 12),
    "half a note": (lambda folder: append(folder / "blocks.jsonl", b'{"bytes": 12'), 12),
    "a byte that was changed": (lambda folder: flip(folder / "pixels.npy", 128 + 6 * 32 * 48 * 3), 4),
    "pixels that are missing": (lambda folder: os.truncate(folder / "pixels.npy", 128 + 9 * 32 * 48 * 3), 8),
    "no notes": (lambda folder: (folder / "blocks.jsonl").unlink(), 0),
    "no pixels": (lambda folder: (folder / "pixels.npy").unlink(), 0),
}


@pytest.mark.parametrize("left", LEFT)
def test_what_is_whole_is_kept_and_the_rest_made_again(
    left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = alike(tmp_path / "data")
    spoil, whole = LEFT[left]
    spoil(cut_after(3, images, kept(tmp_path)))
    read = counted(images, monkeypatch)
    assert same(images, cached(images, "data", kept(tmp_path)))
    assert sorted(read) == list(range(whole, COUNT))


@pytest.mark.parametrize(
    "link", [".tmp-{}", ".tmp-{}/pixels.npy", ".tmp-{}/blocks.jsonl", ".tmp-{}/photos.npz", ".lock-{}"]
)
def test_nothing_is_written_through_a_link(tmp_path: Path, link: str) -> None:
    images = alike(tmp_path / "data")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("precious")
    place = tmp_path / "cache" / link.format(kept(tmp_path).place("data").name)
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere if link == ".tmp-{}" else elsewhere / "precious")
    if link.endswith((".jsonl", ".npz")):  # replaced as a whole
        assert same(images, cached(images, "data", kept(tmp_path)))
    else:
        with pytest.raises(ImageCacheError, match=r"\(it is a link, and nothing is written through links\)"):
            cached(images, "data", kept(tmp_path))
    assert {path.name: path.read_text() for path in elsewhere.iterdir()} == {"precious": "precious"}


@pytest.mark.parametrize("moment", ["write_header", "image_arrays", "write_file", "sync_folder", "rename"])
def test_a_kill_at_the_end_costs_nothing(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = alike(tmp_path / "data")

    write_file = cache_file.write_file

    def cut(*given: Any) -> None:
        if moment != "write_file" or given[0].name != cache_file.NOTES:
            raise Cut
        write_file(*given)

    with monkeypatch.context() as patch:
        patch.setattr(cache_file.os if moment == "rename" else cache_file, moment, cut)
        with pytest.raises(Cut):
            cached(images, "data", kept(tmp_path))
    read = counted(images, monkeypatch)
    assert same(images, cached(images, "data", kept(tmp_path)))
    assert read == []


def test_an_unfinished_cache_of_other_images_is_named_and_begun_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_after(3, alike(tmp_path / "data"), kept(tmp_path))
    (tmp_path / "data" / "cat" / "more.jpg").write_bytes(hostile.jpeg(seed=77))
    images = open_images(tmp_path / "data")
    assert same(images, cached(images, "data", kept(tmp_path)))
    assert "over: it was begun with other images" in capsys.readouterr().out


def test_a_changed_source_is_refused_and_the_cache_left_as_it_is(tmp_path: Path) -> None:
    place = kept(tmp_path).place("data")
    cached(alike(tmp_path / "data"), "data", kept(tmp_path))
    before = pixels_sha(place)
    (tmp_path / "data" / "cat" / "more.jpg").write_bytes(hostile.jpeg(seed=77))
    with pytest.raises(
        ImageCacheError, match=r"data is not what .* made of .*31 images instead of 30.*: delete .*anew"
    ):
        cached(open_images(tmp_path / "data"), "data", kept(tmp_path))
    assert pixels_sha(place) == before


def test_images_changed_without_a_change_of_size_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for at in range(COUNT):
        (data / f"{at:02}.bmp").write_bytes(hostile.encode(hostile.noise(seed=at), "BMP"))
    before = cached(open_images(data), "data", kept(tmp_path)).fingerprint_by_sizes
    for at in range(COUNT):
        (data / f"{at:02}.bmp").write_bytes(hostile.encode(hostile.noise(seed=at + 1), "BMP"))
    assert open_images(data).fingerprint_by_sizes == before
    with pytest.raises(ImageCacheError, match=r"data is not what the cache in .* was made of"):
        cached(open_images(data), "data", kept(tmp_path))


TORN = {
    "short pixels": lambda place: os.truncate(place / "pixels.npy", 5000),
    "a changed pixel": lambda place: flip(place / "pixels.npy", 70_000),
    "a changed header": lambda place: flip(place / "pixels.npy", 3),
    "no pixels": lambda place: (place / "pixels.npy").unlink(),
    "short images": lambda place: os.truncate(place / "photos.npz", 100),
    "a changed index": lambda place: (place / "INDEX.json").write_text(
        (place / "INDEX.json").read_text().replace('"cat"', '"cow"')
    ),
    "half an index": lambda place: os.truncate(place / "INDEX.json", 100),
    "no index": lambda place: (place / "INDEX.json").unlink(),
}


@pytest.mark.parametrize("what", TORN)
def test_a_torn_cache_is_refused(what: str, tmp_path: Path) -> None:
    images = alike(tmp_path / "data")
    cached(images, "data", kept(tmp_path))
    place = kept(tmp_path).place("data")
    TORN[what](place)
    with pytest.raises(ImageSourceError, match=r"(is not what was written|cannot be read) \(.*\): delete the folder"):
        cached(images, "data", kept(tmp_path))
    with pytest.raises(
        ImageSourceError, match=r"^(the cache in .* is not what was|.* cannot be read|there is no image)"
    ):
        open_images(place)
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    assert same(images, cached(images, "data", kept(tmp_path)))


def test_a_cache_without_its_images_is_refused_in_a_sentence(tmp_path: Path) -> None:
    cached(alike(tmp_path / "data"), "data", kept(tmp_path))
    place = kept(tmp_path).place("data")
    TORN["short images"](place)
    with pytest.raises(ImageSourceError, match=r"is not what was written \(photos\.npz cannot be read\): delete"):
        CachedImages(place)


CUT = """
import os, sys
from pathlib import Path
from ssl_backbones.data.cached import CachedImages

images = CachedImages(Path(sys.argv[1]))
print(images[0].size, flush=True)
os.truncate(Path(sys.argv[1]) / "pixels.npy", 4096)
try:
    images[len(images) - 1]
except ValueError as error:
    print(type(error).__name__, error)
"""


def test_a_cache_that_is_cut_while_it_is_read_ends_in_a_sentence(tmp_path: Path) -> None:
    """In a process of its own: reading on would end it by SIGBUS."""
    images = alike(tmp_path / "data")
    cached(images, "data", kept(tmp_path))
    done = run_program(CUT, str(kept(tmp_path).place("data")))
    assert done.returncode == 0, done
    assert "ImageSourceError" in done.stdout
    assert "pixels.npy was cut to 4,096 bytes while it was in use" in done.stdout
