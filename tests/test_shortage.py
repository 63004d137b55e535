"""A process that lacks files or memory says so: its images are not counted as bad ones, nor known by that."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pyarrow as pa
import pytest
from image_sources import structs, write
from test_tar import entry, shard

from ssl_backbones.data import Images, UnreadableImageError, open_images, source
from ssl_backbones.data.frames import frame_of
from ssl_backbones.data.shortage import SHORTAGES, ShortageError

Refused = Callable[[int], None]
READERS: dict[str, Callable[[Images], Any]] = {
    "pixels": lambda images: images[1],
    "bytes": lambda images: images.raw(1),
    "digests": lambda images: images.whole_digests(),
}


def folder(place: Path) -> Path:
    place.mkdir()
    for at in range(3):
        (place / f"{at}.jpg").write_bytes(hostile.jpeg(seed=at))
    return place


def named(place: Path) -> Path:
    """A table whose rows name files."""
    rows = pa.array([{"bytes": None, "path": str(file)} for file in sorted(folder(place).iterdir())], structs(1).type)
    return write(place.with_suffix(".parquet"), image=rows)


def tar(place: Path) -> Path:
    place.mkdir()
    return shard(place / "x.tar", [file for at in range(3) for file in entry(at)])


FORMS = {"folder": folder, "names": named, "tar": tar}


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Let nothing below the images' folder be opened from now on, for one reason."""

    def refuse(number: int) -> None:
        def failing(real: Callable[..., Any]) -> Callable[..., Any]:
            def opening(file: Any, *given: Any, **more: Any) -> Any:
                if str(file).startswith(str(tmp_path / "images")):
                    raise OSError(number, os.strerror(number), str(file))
                return real(file, *given, **more)

            return opening

        for module, name in ((io, "open"), (builtins, "open"), (os, "open")):
            monkeypatch.setattr(module, name, failing(getattr(module, name)))

    return refuse


@pytest.mark.parametrize("number", sorted(SHORTAGES))
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", FORMS)
def test_a_shortage_is_no_fault_of_an_image(
    form: str, reader: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setattr(source, "HELD_IN_MEMORY", 0)
    images = open_images(FORMS[form](tmp_path / "images"))
    refused(number)
    with pytest.raises(ShortageError, match=rf"^'.+' cannot be opened \({os.strerror(number)}\).*ulimit -n"):
        READERS[reader](images)


@pytest.mark.parametrize("form", FORMS)
def test_a_failing_disk_is_one_of_an_image(form: str, tmp_path: Path, refused: Refused) -> None:
    images = open_images(FORMS[form](tmp_path / "images"))
    refused(errno.EIO)
    with pytest.raises(UnreadableImageError, match=os.strerror(errno.EIO)):
        images[1]
    assert images.raw(1) is None


@pytest.mark.parametrize("number", sorted(SHORTAGES))
def test_a_shortage_does_not_hide_a_file(number: int, tmp_path: Path, refused: Refused) -> None:
    (folder(tmp_path / "images") / "no-suffix").write_bytes(hostile.jpeg())
    refused(number)
    with pytest.raises(ShortageError):
        _ = open_images(tmp_path / "images").digests
    with pytest.raises(ShortageError):
        frame_of(tmp_path / "images" / "0.jpg")
