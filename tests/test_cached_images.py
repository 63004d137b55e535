"""Images out of a cache are those that decoding gives, in runs too; and what there is no room for is refused."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path
from typing import Any, get_args

import hostile
import numpy as np
import pytest
import torch
from cache_sources import COUNT, SOURCES, alike, counted, kept, making, mixed, same, seen, small_blocks
from epochs import epoch_of
from PIL import Image
from runs import image_folder, outcome, run, stop, tiny
from two_processes import run_two_processes
from waiting_makers import let_both_end

from ssl_backbones.data import (
    Batches,
    CachedImages,
    Images,
    Request,
    TooManyUnreadableError,
    open_images,
    relabelled,
)
from ssl_backbones.methods import BYOLConfig
from ssl_backbones.recipes.recipe import FREE
from ssl_backbones.recipes.settings import Monitoring
from ssl_backbones.train import cache, cache_file
from ssl_backbones.train.cache import Caching, ImageCacheError, cached
from ssl_backbones.train.loader import Loader
from ssl_backbones.train.processes import meet
from ssl_backbones.views import CenterCrop, Engine, MultiView
from ssl_backbones.views.presets import MOCO_V2_VIEWS

__all__ = ["small_blocks"]


# The same images


@pytest.mark.parametrize("kind", SOURCES)
def test_images_out_of_a_cache_are_those_that_decoding_gives(kind: str, tmp_path: Path) -> None:
    images = SOURCES[kind](tmp_path)
    for _ in range(2):  # made, and found
        found = cached(images, "data", kept(tmp_path))
        assert isinstance(found, CachedImages)
        assert same(images, found)
    assert same(images, pickle.loads(pickle.dumps(found)))
    assert len(pickle.dumps(found)) < 20_000
    assert same(images, open_images(kept(tmp_path).place("data")))
    with pytest.raises(IndexError):
        found[len(images)]


def test_images_of_one_shape_are_one_array_and_others_one_row(tmp_path: Path) -> None:
    images, others = alike(tmp_path / "alike"), mixed(tmp_path / "mixed")
    for source, given in (("alike", images), ("mixed", others)):
        cached(given, source, kept(tmp_path))
    pixels = np.load(kept(tmp_path).place("alike") / "pixels.npy", mmap_mode="r")
    assert pixels.shape == (COUNT, 32, 48, 3)
    assert np.array_equal(pixels[7], np.asarray(images[7]))
    row = np.load(kept(tmp_path).place("mixed") / "pixels.npy", mmap_mode="r")
    assert row.shape == (sum(3 * np.prod(others[at].size) for at in range(len(others)) if len(seen(others, at)) == 4),)


def test_labels_numbered_anew_stay_so(tmp_path: Path) -> None:
    plain = alike(tmp_path / "data")
    assert same(plain, cached(plain, "data", kept(tmp_path)))
    images = relabelled(plain, ["dog", "cat", "cow"])
    assert same(images, cached(images, "data", kept(tmp_path)))
    assert open_images(kept(tmp_path).place("data")).classes == ["cat", "dog"]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_workers_are_the_same(workers: int, tmp_path: Path) -> None:
    images = mixed(tmp_path / "data")

    def batches(of: Images) -> list[Any]:
        loader = Loader(Batches(of, CenterCrop(16), 3), 6, 3, workers=workers)
        return [
            (batch.content, batch.unreadable) for epoch in (0, 1) for step in epoch_of(loader, epoch) for batch in step
        ]

    for one, other in zip(batches(images), batches(cached(images, "data", kept(tmp_path))), strict=True):
        assert torch.equal(one[0], other[0])
        assert one[1] == other[1]


def test_a_run_is_the_same_to_the_last_bit_and_may_change_to_a_cache(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data")
    (data / "bag" / "lost.jpg").write_bytes(b"no image")
    assert {"cache", "cache_limit"} <= FREE
    assert "reencode" not in FREE
    plain = tiny(BYOLConfig, data, tmp_path / "plain", unreadable_share=0.2)
    run(plain)
    with_cache = tiny(BYOLConfig, data, tmp_path / "cached", unreadable_share=0.2, cache=str(tmp_path / "cache"))
    run(with_cache)
    assert outcome(tmp_path / "plain") == outcome(tmp_path / "cached")
    assert "lost.jpg" in outcome(tmp_path / "cached")["results"]["unreadable"][0]
    stop(tiny(BYOLConfig, data, tmp_path / "both", unreadable_share=0.2), 2)
    run(tiny(BYOLConfig, data, tmp_path / "both", unreadable_share=0.2, cache=str(tmp_path / "cache")))
    assert outcome(tmp_path / "plain") == outcome(tmp_path / "both")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four large JPEGs."""
    folder = tmp_path_factory.mktemp("large")
    for at in range(4):
        (folder / f"{at}.jpg").write_bytes(hostile.jpeg(1200, 900, seed=at))
    return folder


@pytest.mark.parametrize("engine", get_args(Engine))
def test_a_run_that_changes_to_a_cache_says_whether_its_views_are_others(
    engine: Engine, large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = open_images(large)
    plain, kept_ones = (
        Batches(of, MultiView(MOCO_V2_VIEWS, 16, engine), 3)
        for of in (images, cached(images, str(large), kept(tmp_path)))
    )
    request = Request(0, np.arange(4))
    shown = [batches.on_device(batches[request].content) for batches in (plain, kept_ones)]
    same_views = all(torch.equal(one, other) for one, other in zip(*shown, strict=True))
    choices: dict[str, Any] = {"engine": engine, "batch_size": 4, "monitoring": Monitoring(knn_every=0)}
    stop(tiny(BYOLConfig, large, tmp_path / "run", **choices), 1)
    capsys.readouterr()
    run(tiny(BYOLConfig, large, tmp_path / "run", cache=str(tmp_path / "cache"), **choices))
    told = "large JPEGs are decoded whole, and were not, as --cache was changed" in capsys.readouterr().out
    assert same_views != told == (engine == "opencv")


# Room, and what is too much


def test_a_large_source_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = alike(tmp_path / "data")
    assert cached(images, "data", kept(tmp_path, limit=1e-5)) is images
    assert "data is not cached: its 30 images take about" in capsys.readouterr().out
    assert not (tmp_path / "cache").exists()


def test_a_full_disk_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = alike(tmp_path / "data")
    read = counted(images, monkeypatch)
    usage = type(cache.shutil.disk_usage(tmp_path))(10**9, 10**9, 100_000)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ImageCacheError, match=r"needs about 0\.1 MB more and 0\.1 MB are free: make room"):
        cached(images, "data", kept(tmp_path))
    assert read == []


def test_a_disk_that_fills_up_is_told_and_the_making_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = alike(tmp_path / "data")
    add = cache_file.UnfinishedCache.add

    def full(self: Any, indices: range) -> None:
        if len(self.blocks) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(self, indices)

    with monkeypatch.context() as patch:
        patch.setattr(cache_file.UnfinishedCache, "add", full)
        with pytest.raises(ImageCacheError, match=r"cannot be written \(No space left on device\): make room"):
            cached(images, "data", kept(tmp_path))
    read = counted(images, monkeypatch)
    assert same(images, cached(images, "data", kept(tmp_path)))
    assert sorted(read) == list(range(8, COUNT))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ImageCacheError, match="images cannot be kept in"):
        cached(alike(tmp_path / "data"), "data", kept(tmp_path))


def test_a_whole_cache_is_used_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = alike(tmp_path / "data")
    cached(images, "data", kept(tmp_path))
    lock = kept(tmp_path).place("data").with_name(f".lock-{kept(tmp_path).place('data').name}")
    lock.unlink()

    def locked(path: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(cache, "Lock", locked)
    assert same(images, cached(images, "data", kept(tmp_path)))
    assert not lock.exists()
    with pytest.raises(ImageCacheError, match=r"images cannot be kept in .* \(Permission denied\): name a folder"):
        cached(images, "others", kept(tmp_path))


def test_too_many_unreadable_images_end_the_making_by_name(tmp_path: Path) -> None:
    images = mixed(tmp_path / "data")
    with pytest.raises(TooManyUnreadableError, match=r"(?s)2 of 18 images cannot be read.*empty\.jpg.*torn\.jpg"):
        cached(images, "data", kept(tmp_path, unreadable_share=0.01))
    assert same(images, cached(images, "data", kept(tmp_path)))


# Encoded anew


def test_images_encoded_anew_are_said_to_be_others(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data")
    recipe = tiny(BYOLConfig, data, tmp_path / "run", cache=str(tmp_path / "cache"), reencode=20)
    run(recipe)
    told = outcome(tmp_path / "run")["results"]["data"]["reencoded"]
    assert (told["short_side"], told["quality"]) == (20, 90)
    place = Caching(tmp_path / "cache", side=20).place(str(data))
    found, images = CachedImages(place), open_images(data)
    assert found.index["content"] == told
    assert [min(found[at].size) for at in range(len(found))] == [20] * len(images)
    for at in range(len(images)):
        small = images[at].resize(found[at].size, Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(found[at], float) - np.asarray(small, float)).mean() < 6
    with pytest.raises(ValueError, match="reencode is 20, but must be 0 without a folder for the cache"):
        tiny(BYOLConfig, data, tmp_path / "run", reencode=20)


@pytest.mark.parametrize("side", [8, 20])
def test_what_jpeg_cannot_hold_is_left_out_by_name(side: int, tmp_path: Path) -> None:
    images = mixed(tmp_path / "data")
    for name, size in (("wide", (70_000, 9)), ("high", (9, 70_000)), ("long", (65_500, 8))):
        Image.new("RGB", size).save(tmp_path / "data" / f"{name}.png")
    images = open_images(tmp_path / "data")
    for _ in range(2):
        found = cached(images, "data", kept(tmp_path, side=side))
        assert isinstance(found, CachedImages)
        left_out = {images.keys[at]: why for at, why in found.unreadable.items()}
        expected = {"empty.jpg", "torn.jpg", *({"wide.png", "high.png"} if side == 20 else ())}
        assert set(left_out) == expected
        if side == 20:
            assert left_out["wide.png"].startswith(
                "'wide.png' cannot be kept as JPEG: its 70000 x 9 pixels go beyond 65,500 a side: cut it, or"
            )
            assert found[list(images.keys).index("long.png")].size == (65_500, 8)


# Several processes


def test_two_makers_of_one_cache_wait_for_one_another(tmp_path: Path) -> None:
    images = alike(tmp_path / "data")
    makers = [making(tmp_path / "data", tmp_path, hold=3) for _ in range(2)]
    let_both_end(
        makers,
        lambda: any("another process" in path.read_text() for path in tmp_path.glob("said-*")),
        tmp_path / "go",
    )
    said = "".join(path.read_text() for path in tmp_path.glob("said-*"))
    assert said.count("are kept in") == 1
    assert said.count("another process makes the cache") == 1
    assert same(images, cached(images, "data", kept(tmp_path)))


def as_rank(rank: int, data: str, folder: str) -> dict[str, Any]:
    """One process's view of a cache that two have made."""
    decoded: list[int] = []
    content = cache_file.UnfinishedCache.content

    def count(self: Any, at: int) -> Any:
        decoded.append(at)
        return content(self, at)

    cache_file.UnfinishedCache.content = count  # type: ignore[method-assign]
    meet()
    images = open_images(data)
    found = cached(images, data, Caching(Path(folder)))
    refused = ""
    (Path(data) / "cat" / f"more-{rank}.jpg").write_bytes(hostile.jpeg(seed=rank))
    torch.distributed.barrier()
    try:
        cached(open_images(data), data, Caching(Path(folder)))
    except Exception as error:
        refused = str(error)
    return {"decoded": len(decoded), "same": same(images, found), "refused": refused}


def test_one_process_makes_and_the_other_waits(tmp_path: Path) -> None:
    alike(tmp_path / "data")
    first, second = run_two_processes(as_rank, str(tmp_path / "data"), str(tmp_path / "cache"))
    assert (first["decoded"], second["decoded"]) == (COUNT, 0)
    assert first["same"]
    assert second["same"]
    assert first["refused"] == second["refused"]
    assert "32 images instead of 30" in first["refused"]
