"""A corpus of hostile image files: no crash, no hang, each of them read whole or counted and named."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import hostile
import numpy as np
import pytest
from PIL import Image
from warm_processes import run_program

from ssl_backbones.data import TooManyUnreadableError, UnreadableImageError, open_images
from ssl_backbones.data.batches import Batches
from ssl_backbones.data.decode import decode
from ssl_backbones.data.parts import Request
from ssl_backbones.data.unreadable import Unreadable
from ssl_backbones.views import CenterCrop

FORMATS = {
    "JPEG": hostile.encode(hostile.noise(), "JPEG"),
    "progressive": hostile.encode(hostile.noise(), "JPEG", progressive=True),
    "PNG": hostile.encode(hostile.noise()),
    "interlaced": hostile.encode(hostile.noise(), "PNG", interlace=1),
    "WEBP": hostile.encode(hostile.noise(), "WEBP", lossless=True),
    "GIF": hostile.encode(hostile.noise(), "GIF"),
    "BMP": hostile.encode(hostile.noise(), "BMP"),
    "TIFF": hostile.encode(hostile.noise(), "TIFF"),
    "PPM": hostile.encode(hostile.noise(), "PPM"),
    "turned": hostile.turned(6),
    "CMYK": hostile.cmyk("JPEG"),
    "multi-picture": hostile.multi_picture(),
    "palette": hostile.palette_transparent(),
    "16 bits": hostile.sixteen_bits("PNG"),
}
ENDS_EARLY = 64
"""Bytes that may be missing of a file's end without a pixel of it: its last markers."""


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_at_every_64th_byte_is_read_whole_or_refused(name: str) -> None:
    file = FORMATS[name]
    whole = np.asarray(decode(file, "whole"))
    read = []
    for length in range(0, len(file), 64):
        with contextlib.suppress(UnreadableImageError):
            pixels = np.asarray(decode(file[:length], "cut"))
            read.append(length)
            assert np.array_equal(pixels, whole)
    if name != "multi-picture":  # its first picture ends long before the file
        assert all(length > len(file) - ENDS_EARLY for length in read)


SCRIPTS = ["photo", "фото", "照片", "写真", "사진", "صورة", "תמונה", "รูปถ่าย", "चित्र", "φωτογραφία", "😀", "é" * 60,
           "e\u0301", "\u202egpj", "a b\tc", "new\nline", "-rf", "%00", "${HOME}", "<img src=x onerror=alert(1)>",
           "'; DROP TABLE", "..jpg", "con", "NUL"]  # fmt: skip


def test_names_in_every_script_are_read_and_named_as_they_are(tmp_path: Path) -> None:
    for number, name in enumerate(SCRIPTS):
        (tmp_path / f"{name.replace('/', '_')}.jpg").write_bytes(hostile.jpeg(seed=number))
        (tmp_path / f"{name.replace('/', '_')} broken.jpg").write_bytes(b"")
    images = open_images(str(tmp_path))
    assert len(images) == 2 * sum(not name.startswith(".") for name in SCRIPTS)
    seen, _ = counted(images)
    assert set(seen) == {key for key in images.keys if key.endswith(" broken.jpg")}
    assert all(repr(str(tmp_path / key)) in reason for key, reason in seen.items())


def counted(images: object, share: float = 1.0) -> tuple[dict[str, str], Unreadable]:
    """The unreadable ones of some images, as a run counts them."""
    account = Unreadable(len(images), share)  # type: ignore[arg-type]
    batches = Batches(images, CenterCrop(16, 1.0, "bilinear"), seed=0)  # type: ignore[arg-type]
    for index in range(len(images)):  # type: ignore[arg-type]
        account.add(batches[Request(0, np.array([index]))].unreadable)
    return account.reasons, account


def corpus(folder: Path) -> tuple[set[str], set[str]]:
    """A folder of everything hostile: the names of what can be read and of what cannot."""
    good = {
        "1x1.png": hostile.encode(hostile.quarters(2, 2)[:1, :1].copy()),
        "1x10000.png": hostile.encode(hostile.quarters(2, 10_000)[:, :1].copy()),
        "10000x1.png": hostile.encode(hostile.quarters(10_000, 2)[:1].copy()),
        "40 megapixels.png": hostile.encode(Image.new("RGB", (8000, 5000), hostile.GREY), "PNG", compress_level=1),
        "cmyk.jpg": hostile.cmyk("JPEG"),
        "16 bits.png": hostile.sixteen_bits("PNG"),
        "palette.png": hostile.palette_transparent(),
        "animated.gif": hostile.animated("GIF"),
        "a png.jpg": hostile.encode(hostile.quarters()),
        "a jpeg.png": hostile.jpeg(),
    }
    bad = {f"{fault}.jpg": make() for fault, make in hostile.UNREADABLE.items()}
    for name, content in (good | bad).items():
        (folder / name).write_bytes(content)
    (folder / "itself.jpg").symlink_to(folder / "itself.jpg")
    (folder / "nowhere.jpg").symlink_to(folder / "gone.jpg")
    (folder / "one.jpg").symlink_to(folder / "two.jpg")
    (folder / "two.jpg").symlink_to(folder / "one.jpg")
    (folder / "below").mkdir()
    (folder / "below" / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.jpg")
    return {*good}, {*bad, "itself.jpg", "nowhere.jpg", "one.jpg", "two.jpg"}


def test_the_corpus_is_counted_and_named(tmp_path: Path) -> None:
    good, bad = corpus(tmp_path)
    images = open_images(str(tmp_path))
    assert set(images.keys) == good | bad
    seen, account = counted(images)
    assert set(seen) == bad
    assert f"{len(bad)} of {len(images)} images cannot be read" in account.complaint()
    with pytest.raises(TooManyUnreadableError) as caught:
        counted(images, share=0.01)
    assert "raise the share" in str(caught.value)


READER = """
import json, os, sys
from ssl_backbones.data import ImageSourceError, UnreadableImageError, open_images
said = {}
images = open_images(sys.argv[1])
images[images.keys.index("open.jpg")]  # imports what it needs while that may be read
os.setgid(65534)
os.setuid(65534)
for number, key in enumerate(images.keys):
    try:
        images[number]
        said[key] = "read"
    except UnreadableImageError as error:
        said[key] = str(error)
try:
    open_images(os.path.join(os.path.dirname(sys.argv[1]), "shut"))
except ImageSourceError as error:
    said["shut"] = str(error)
print(json.dumps(said))
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="the reader must be somebody else")
def test_files_and_folders_that_may_not_be_read_are_named(shared_path: Path) -> None:
    (shared_path / "photos").mkdir()
    for name in ("open.jpg", "closed.jpg"):
        (shared_path / "photos" / name).write_bytes(hostile.jpeg())
    (shared_path / "photos" / "closed.jpg").chmod(0)
    (shared_path / "shut").mkdir(mode=0)
    done = run_program(READER, shared_path / "photos")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["open.jpg"] == "read"
    assert said["closed.jpg"].endswith("closed.jpg' cannot be read: Permission denied")
    assert said["shut"].endswith("cannot be listed (Permission denied): make it readable")
