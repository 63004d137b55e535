"""Images are read where POSIX's calls are missing, as on Windows: to the same bytes and digests."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from image_sources import fill
from test_tar import shards

from ssl_backbones.data import open_images
from ssl_backbones.data.descriptors import open_to_read, read_at


def without_posix(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("O_CLOEXEC", "O_NONBLOCK", "pread", "posix_fadvise", "getuid"):
        monkeypatch.delattr(os, name, raising=False)


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_images_are_the_same_without_posix(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = fill(tmp_path / "x", "1.jpg", "2.jpg") if form == "folder" else shards(tmp_path / "x", [2, 1])
    here = open_images(place)
    fingerprint, pixels = here.fingerprint, [np.asarray(here[at]) for at in range(2)]
    without_posix(monkeypatch)
    there = open_images(place)
    assert there.fingerprint == fingerprint
    assert all(np.array_equal(there[at], pixels[at]) for at in range(2))
    whole = there.whole_digests()
    assert whole is not None
    assert whole.any(axis=1).all()


def test_threads_read_through_one_descriptor_without_posix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_posix(monkeypatch)
    (tmp_path / "x").write_bytes(bytes(range(256)) * 64)
    descriptor = open_to_read(tmp_path / "x")
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda at: read_at(descriptor, 4, 4 * at), range(4096)))
    finally:
        os.close(descriptor)
    assert b"".join(found) == bytes(range(256)) * 64
