"""Shards behind an address: for tests of what is read from there, and of its faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from shard_server import ShardServer, serving_shards
from test_tar import shards

from ssl_backbones.data import asking, blocks, open_images, tar
from ssl_backbones.data.blocks import Keeping
from ssl_backbones.data.tar import TarImages


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a test caches of its own, and no long wait before another try."""
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr(blocks, "temporary_folder", lambda: tmp_path / "blocks")
    monkeypatch.setattr(asking, "WAIT", 0.01)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of four shards, in windows of one or two each."""
    monkeypatch.setattr(tar, "WINDOW", 6)
    return shards(tmp_path / "served", [3, 4, 2, 5], lambda at: str(at % 2))


@pytest.fixture
def server(folder: Path) -> Iterator[ShardServer]:
    """The server that they lie on."""
    with serving_shards(folder) as server:
        yield server


def opened(server: ShardServer, **keeping: object) -> TarImages:
    """The images of those four at their address."""
    images = open_images(f"{server.url}/part-{{000..003}}.tar", keeping=Keeping(**keeping))  # type: ignore[arg-type]
    assert isinstance(images, TarImages)
    return images
