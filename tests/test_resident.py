"""Images that stay on the device give the views, and the run, of images that are sent there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from cache_sources import SOURCES, mixed, small_blocks
from epochs import epoch_of
from hypothesis import given
from hypothesis import strategies as st
from runs import image_folder, outcome, run, tiny

from ssl_backbones.data import Batches, CachedImages, ImageSourceError, ResidentImages, UnreadableImageError
from ssl_backbones.methods import BYOLConfig, FlagsConfig, MethodConfig, MoCoV2Config, PatchRotNetConfig
from ssl_backbones.train import cache
from ssl_backbones.train.cache import Caching, cached
from ssl_backbones.train.loader import Loader
from ssl_backbones.train.prepare import UnfitError
from ssl_backbones.views import MOCO_V2_VIEWS, MultiView
from ssl_backbones.views.resident import ResidentImage, ResidentPixels

__all__ = ["small_blocks"]

CPU = torch.device("cpu")


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=5), st.data())
def test_canvases_are_the_images_with_black_around_them(sizes: list[tuple[int, int]], data: st.DataObject) -> None:
    images = [np.random.default_rng(at).integers(1, 256, (*size, 3), np.uint8) for at, size in enumerate(sizes)]
    ends = np.cumsum([0, *(height * width for height, width in sizes)])
    levels = torch.from_numpy(np.concatenate([each.reshape(-1, 3) for each in images]))
    pixels = ResidentPixels(levels, torch.from_numpy(ends[:-1]), torch.tensor(sizes))
    rows = data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1, max_size=6))
    height, width = np.max([sizes[row] for row in rows], axis=0).tolist()
    expected = np.zeros((len(rows), height, width, 3), np.uint8)
    for canvas, row in zip(expected, rows, strict=True):
        canvas[: sizes[row][0], : sizes[row][1]] = images[row]
    np.testing.assert_array_equal(pixels.canvases(torch.tensor(rows), height, width).numpy(), expected)


@pytest.mark.parametrize("kind", SOURCES)
def test_every_image_is_there_and_can_still_be_read_on_the_host(kind: str, tmp_path: Path) -> None:
    images = SOURCES[kind](tmp_path)
    found = cached(images, "data", Caching(tmp_path / "cache", unreadable_share=1.0))
    assert isinstance(found, CachedImages)
    there = ResidentImages(found, CPU)
    assert there.fingerprint == images.fingerprint
    assert list(there.keys) == list(images.keys)
    for at in range(len(images)):
        if at in found.unreadable:
            with pytest.raises(UnreadableImageError, match=re.escape(found.unreadable[at])):
                there[at]
            continue
        each = there[at]
        assert isinstance(each, ResidentImage)
        levels = there.pixels.canvases(torch.tensor([at]), each.height, each.width)[0]
        np.testing.assert_array_equal(levels.numpy(), np.asarray(found[at]))
        assert each.tobytes() == found[at].tobytes()
        assert each.resize((3, 3)).tobytes() == found[at].resize((3, 3)).tobytes()
    with pytest.raises(IndexError):
        there[len(images)]


def test_a_batch_of_resident_images_is_named_and_not_sent(tmp_path: Path) -> None:
    images = cached(mixed(tmp_path / "photos"), "data", Caching(tmp_path / "cache", unreadable_share=1.0))
    assert isinstance(images, CachedImages)
    transform = MultiView(MOCO_V2_VIEWS, 16, engine="device")
    sent, named = (Batches(each, transform, seed=3) for each in (images, ResidentImages(images, CPU)))
    for (one,), (other,) in zip(*(epoch_of(Loader(batches, 5, 3), 0) for batches in (sent, named)), strict=True):
        assert "images" not in other.content
        assert one.unreadable == other.unreadable
        for view, same in zip(sent.on_device(one.content), named.on_device(other.content), strict=True):
            torch.testing.assert_close(same, view, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [BYOLConfig, MoCoV2Config, FlagsConfig], ids=lambda kind: kind.name)
def test_a_run_on_resident_images_is_the_same_run(kind: type[MethodConfig], tmp_path: Path) -> None:
    data = image_folder(tmp_path / "photos")
    choices = {"engine": "device", "cache": str(tmp_path / "cache")}
    run(tiny(kind, data, tmp_path / "sent", **choices))
    run(tiny(kind, data, tmp_path / "named", **choices, resident=True, workers=None))
    assert outcome(tmp_path / "sent") == outcome(tmp_path / "named")


def test_a_method_whose_views_the_device_does_not_make_is_refused_before_the_cache_is_made(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "photos")
    choices = {"engine": "device", "cache": str(tmp_path / "cache"), "resident": True}
    message = "engine is 'device', but patch_rotnet makes its views by pillow alone: leave out --engine and --resident"
    with pytest.raises(UnfitError, match=message):
        run(tiny(PatchRotNetConfig, data, tmp_path / "run", **choices))
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resident": True}, "resident is True"),
        ({"resident": True, "cache": "here"}, "resident is True"),
        ({"resident": True, "engine": "device"}, "resident is True"),
        ({"resident": True, "engine": "device", "cache": "here", "workers": 2}, "workers is 2"),
    ],
)
def test_what_cannot_be_resident_is_refused(fields: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(BYOLConfig, tmp_path, tmp_path, **fields)


def test_images_without_room_on_the_device_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = image_folder(tmp_path / "photos")
    choices = {"engine": "device", "cache": str(tmp_path / "cache"), "resident": True}
    with pytest.raises(ImageSourceError, match="cache_limit 1e-06 GB"):
        run(tiny(BYOLConfig, data, tmp_path / "run", **choices, cache_limit=1e-6))
    with pytest.raises(ImageSourceError, match="holds JPEG"):
        run(tiny(BYOLConfig, data, tmp_path / "run", **choices, reencode=16))
    monkeypatch.setattr(cache, "free_memory", lambda device: 4000.0)
    with pytest.raises(ImageSourceError, match=r"images may take 0\.00 GB of this cpu device's memory"):
        run(tiny(BYOLConfig, data, tmp_path / "run", **choices))
    assert not (tmp_path / "run").exists()
