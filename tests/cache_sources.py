"""Images to keep in a cache, and how to tell that they are the same."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ssl_backbones.data import (
    Images,
    UnreadableImageError,
    hub_dataset,
    open_images,
)
from ssl_backbones.train import cache, cache_file
from ssl_backbones.train.cache import Caching, cached


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cache, cache_file):
        monkeypatch.setattr(module, "BLOCK", 4)


COUNT = 30
"""Images, in blocks of four."""


def alike(path: Path) -> Images:
    """A folder of JPEGs of one shape in two classes."""
    for at in range(COUNT):
        below = path / ("cat", "dog")[at % 2]
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{at:02}.jpg").write_bytes(hostile.jpeg(seed=at))
    return open_images(path)


def mixed(path: Path) -> Images:
    """A folder of all sorts: turned by EXIF data, grey, transparent, of many shapes, and two that cannot be read."""
    path.mkdir()
    for at in range(12):
        (path / f"{at:02}.jpg").write_bytes(hostile.jpeg(20 + at, 30, seed=at))
    turned = Image.Exif()
    turned[0x0112] = 6
    (path / "turned.jpg").write_bytes(hostile.encode(hostile.noise(), "JPEG", exif=turned))
    (path / "grey.png").write_bytes(hostile.encode(hostile.ramp()))
    see_through = np.dstack([hostile.noise(), hostile.ramp()])
    (path / "see-through.png").write_bytes(hostile.encode(see_through))
    (path / "empty.jpg").write_bytes(b"")
    (path / "torn.jpg").write_bytes(hostile.jpeg()[:300])
    hostile.leave(path / "latin-\udce9.jpg", hostile.jpeg(seed=99))
    return open_images(path)


def table(path: Path) -> Path:
    """A parquet file as `datasets` writes it, one row without an image."""
    rows = [{"bytes": hostile.jpeg(seed=at) if at != 3 else None, "path": f"{at}.jpg"} for at in range(10)]
    encoded = pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b", "c"]}}
    columns = pa.table({"image": encoded, "label": [at % 3 for at in range(10)]})
    pq.write_table(columns.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), path)
    return path


SOURCES: dict[str, Callable[[Path], Images]] = {
    "folder of one shape": lambda path: alike(path / "data"),
    "folder of all sorts": lambda path: mixed(path / "data"),
    "parquet": lambda path: open_images(table(path / "data.parquet")),
    "hub dataset": lambda path: hub_dataset.load_parquet([table(path / "data.parquet")]),
}


def seen(images: Images, at: int) -> object:
    """An image's mode, size, notes and bytes, or why it cannot be read."""
    try:
        image = images[at]
    except UnreadableImageError as error:
        return str(error)
    return image.mode, image.size, image.info, image.tobytes()


def same(one: Images, other: Images) -> bool:
    """True if two collections are the same in all that `Images` promises."""
    labels = [None if images.labels is None else images.labels.tolist() for images in (one, other)]
    return (
        list(one.keys) == list(other.keys)
        and labels[0] == labels[1]
        and list(one.classes) == list(other.classes)
        and one.fingerprint == other.fingerprint
        and [seen(one, at) for at in range(len(one))] == [seen(other, at) for at in range(len(one))]
    )


def kept(path: Path, **choices: Any) -> Caching:
    return Caching(path / "cache", **{"unreadable_share": 0.5} | choices)


def pixels_sha(place: Path) -> str:
    return hashlib.sha256((place / "pixels.npy").read_bytes()).hexdigest()


def make(data: Path, folder: Path, hold: int | None) -> None:
    """Make a cache, as a process does; before the block of number `hold`, wait for a file named go."""
    add = cache_file.UnfinishedCache.add

    def held(self: Any, indices: range) -> None:
        while len(self.blocks) == hold and not (folder / "go").exists():
            time.sleep(0.01)
        add(self, indices)

    cache_file.UnfinishedCache.add = held  # type: ignore[method-assign]
    with open(folder / f"said-{os.getpid()}", "w", buffering=1) as said, contextlib.redirect_stdout(said):
        cached(open_images(data), "data", Caching(folder / "cache"))


def making(data: Path, folder: Path, hold: int | None = None) -> multiprocessing.Process:
    """A process that makes a cache, and may be held before a block."""
    process = multiprocessing.get_context("fork").Process(target=make, args=(data, folder, hold))
    process.start()
    return process


def counted(images: Images, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images that are decoded for a cache from here on."""
    read: list[int] = []
    content = cache_file.UnfinishedCache.content
    monkeypatch.setattr(cache_file.UnfinishedCache, "content", lambda self, at: (read.append(at), content(self, at))[1])
    return read
