"""The formats that images may have: known by the ends of names and by first bytes, and read where Pillow can."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from PIL import features

from ssl_backbones.checks import few
from ssl_backbones.data.shortage import require_resources

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""The formats that are read everywhere; JPEG includes the MPO that many phones write as .jpg."""

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")  # fmt: skip # noqa: E501
"""Ends of the names of images in those formats, in lower case."""

AVIF_SUFFIXES, HEIF_SUFFIXES = (".avif",), (".heic", ".heif", ".hif")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")

STARTS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP|II\*\0|MM\0\*|II\+\0|MM\0\+|P[1-6]\s+[\d#]"
    rb"|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    re.DOTALL,
)
"""First bytes of images in those formats."""
START = 24
"""First bytes that tell a format."""

COPIED = re.compile(rf"(?:{'|'.join(map(re.escape, SUFFIXES + AVIF_SUFFIXES + HEIF_SUFFIXES))})(?:\.\d+|[^a-z0-9.].*)$")
"""End of the name of an image that was saved a second time: `.jpg.1`, `.jpg?width=640`, `.png~`."""

CONVERT, UNPACK, FRAMES = "convert them to .jpg or .png", "unpack them", "take images out of them"
WAYS_OUT = (
    dict.fromkeys((".jp2", ".j2k", ".jpx", ".jxl", ".psd", ".svg", ".tga", ".exr", ".ico", ".pdf"), CONVERT)
    | dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2"), CONVERT)
    | dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"), UNPACK)
    | dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm"), FRAMES)
    | dict.fromkeys(AVIF_SUFFIXES, "pip install -U pillow")
    | dict.fromkeys(HEIF_SUFFIXES, "pip install 'ssl-backbones[heic]'")
    | {".npy": "--in_chans N reads them as images of N channels"}
    | dict.fromkeys((".dcm", ".dicom"), "--in_chans 1 reads them, with pip install 'ssl-backbones[dicom]'")
)
"""Ways to come by the images of files that are not looked at."""
NO_SUFFIX = "without a suffix"


@cache
def heif_is_read() -> bool:
    """True where pillow-heif is installed; Pillow knows of it from then on."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener(thumbnails=False)
    return True


def avif_is_read() -> bool:
    """True where Pillow was built with AVIF; old ones have never heard of it."""
    return "avif" in features.modules and features.check_module("avif")


@cache
def formats() -> tuple[str, ...]:
    """All formats that are ever tried, whatever a file is called."""
    return (*FORMATS, *(["AVIF"] if avif_is_read() else []), *(["HEIF"] if heif_is_read() else []))


_LOOKED_FOR: ContextVar[tuple[str, ...]] = ContextVar("suffixes", default=())


@contextmanager
def looking_for(suffixes: tuple[str, ...]) -> Iterator[None]:
    """Files with these ends alone are images in this block; with none, all those that can be read here."""
    token = _LOOKED_FOR.set(suffixes)
    try:
        yield
    finally:
        _LOOKED_FOR.reset(token)


def suffixes() -> tuple[str, ...]:
    """Ends of the names of images that are looked for, in lower case."""
    return _LOOKED_FOR.get() or readable_suffixes()


def looked_for() -> str:
    """The ends of the names that alone are images here, in a word; empty where all that can be read are."""
    return " ".join(_LOOKED_FOR.get())


@cache
def readable_suffixes() -> tuple[str, ...]:
    """Ends of the names of images that can be read here."""
    known = formats()
    return SUFFIXES + (AVIF_SUFFIXES if "AVIF" in known else ()) + (HEIF_SUFFIXES if "HEIF" in known else ())


def is_image(path: str, name: str) -> bool:
    """True for an image, by its name; by its first bytes where the name has no suffix, or as `.jpg.1`."""
    lower = name.lower()
    if lower.endswith(suffixes()):
        return True
    if _LOOKED_FOR.get() or (Path(name).suffix and not COPIED.search(lower)):
        return False
    try:
        with open(path, "rb") as file:
            return begins_an_image(file.read(START))
    except OSError as error:
        require_resources(error, path)
        return False


def begins_an_image(start: bytes) -> bool:
    """True for the first bytes of an image that can be read here."""
    kind = kind_of_box(start)
    return STARTS.match(start) is not None or (kind is not None and kind in formats())


def kind_of_box(start: bytes) -> str | None:
    """AVIF or HEIF where first bytes are those of such a file."""
    if start[4:8] != b"ftyp":
        return None
    return "AVIF" if start[8:12] in (b"avif", b"avis") else "HEIF" if start[8:12] in HEIF_BRANDS else None


def kind_of_name(name: str) -> str:
    """The suffix that a file is counted under."""
    return Path(name).suffix.lower() or NO_SUFFIX


def passed_over(counts: Counter[str]) -> str:
    """The number of files that were not looked at, by suffix, and how to come by their images; empty for none."""
    if not counts:
        return ""
    told = [
        f"{count} {kind}" + (f" ({WAYS_OUT[kind]})" if kind in WAYS_OUT else "")
        for kind, count in sorted(counts.items(), key=lambda item: (item[0] not in WAYS_OUT, -item[1], item[0]))
    ]
    return f"{sum(counts.values())} files are no images that can be read here: {few(told, 6)}"
