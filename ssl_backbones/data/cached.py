"""Images that were decoded once, out of one memory-mapped file.

A cache is a folder that was written as a whole (`train/cache.py`):

    pixels.npy    uint8: (N, H, W, 3) where all images have one shape, and image behind image in one row where not
    photos.npz    of each image: its key, its label, where it ends in the row, its height and width
    INDEX.json    what the images are of, and the sha256 of the files above and of itself

A cache of kind "pixels" gives what decoding gave, to the last bit. One of kind "jpeg" holds images scaled down and
encoded anew, which are others than the source's, and its index says so.
"""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path
from typing import Any, TypedDict, final
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from ssl_backbones.checks import check
from ssl_backbones.data.decode import decode
from ssl_backbones.data.images import Images, ImageSourceError, UnreadableImageError
from ssl_backbones.data.keys import PathKeys
from ssl_backbones.files import file_digest, object_digest, read_object
from ssl_backbones.typed.values import check_form

SCHEMA = 1
INDEX, ARRAYS, PIXELS = "INDEX.json", "photos.npz", "pixels.npy"
HEADER = 128
"""Bytes in front of the pixels."""


def check_reencode(reencode: int, cache: str) -> None:
    """Refuse a shorter side that images are scaled down to where no cache keeps them."""
    check(reencode >= 0, "reencode", reencode, "at least 0")
    check(not reencode or bool(cache), "reencode", reencode, "0 without a folder for the cache")


class Of(TypedDict):
    """The source of a cache."""

    source: str
    fingerprint: str
    photos: int


class OfContent(Of, total=False):
    """The source of a cache that knows images by their content, too."""

    fingerprint_by_sizes: str
    content_digest: str


class Content(TypedDict):
    """The form in which a cache keeps each image."""

    kind: str


class BlockDigest(TypedDict):
    """A block of pixels."""

    bytes: int
    sha256: str


Files = TypedDict("Files", {PIXELS: list[BlockDigest], ARRAYS: str})  # type: ignore[misc]


class Index(TypedDict):
    """INDEX.json, as `train/cache_file.py` writes it."""

    of: OfContent
    content: Content
    made_with: dict[str, str | None]
    classes: list[str]
    labelled: bool
    unreadable: dict[str, str]
    files: Files


@final
class CachedImages(Images):
    """The images of a cache, under the names, labels and fingerprint of the source that it was made of.

    Processes share the file's pages; a pickle names the folder. An image that could not be read when the cache was made
    is as unreadable here, for the same reason.
    """

    def __init__(self, folder: str | Path) -> None:
        """Looks at the index alone; `verify` looks at every byte."""
        self.folder = self.place = Path(folder)
        self.index = read_index(self.folder)
        try:
            with open(self.folder / ARRAYS, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                self.keys = PathKeys.of(arrays["keys"], arrays["key_ends"])
                self.labels = arrays["labels"] if self.index["labelled"] else None
                self.ends, self.shapes = arrays["ends"], arrays["shapes"]
                self.digests = arrays.get("digests")
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise torn_error(self.folder, f"{ARRAYS} cannot be read") from error
        self.classes = self.index["classes"]
        self.fingerprint = self.index["of"]["fingerprint"]
        self.fingerprint_by_sizes = self.index["of"].get("fingerprint_by_sizes", self.fingerprint)
        self.content_digest = self.index["of"].get("content_digest")
        self.told_by_sizes = "fingerprint_by_sizes" not in self.index["of"]
        """True of a cache of 0.1.0.dev0, which knew images by their sizes alone."""
        self.unreadable = {int(at): reason for at, reason in self.index["unreadable"].items()}
        content: dict[str, Any] = {**self.index["content"]}
        self.encoded = content["kind"] != "pixels"
        self.altered = f"{content['kind']} of {content['short_side']} px" if self.encoded else ""
        self.whole = not self.encoded
        self.file: mmap.mmap | None = None
        self.content = np.empty(0, np.uint8)

    def __getitem__(self, index: int) -> Image.Image:
        at = range(len(self))[index]
        if at in self.unreadable:
            raise UnreadableImageError(self.unreadable[at])
        content = self.content_of(at)
        if self.encoded:
            return decode(content.tobytes(), self.keys[at])
        height, width = self.shapes[at].tolist()
        return Image.frombytes("RGB", (width, height), content)

    def content_of(self, index: int) -> np.ndarray:
        """The bytes (B,) that are kept of an image."""
        self.require(int(self.ends[index + 1]))
        return self.content[self.ends[index] : self.ends[index + 1]]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "file": None, "content": np.empty(0, np.uint8)}

    def require(self, count: int) -> None:
        """Map the pixels, and refuse a file that was cut below so many bytes of them: reading it would be fatal."""
        if self.file is None:
            self.file = mapped(self.folder)
            self.content = np.frombuffer(self.file, np.uint8, offset=HEADER)
        if self.file.size() < HEADER + count:
            raise torn_error(self.folder, f"{PIXELS} was cut to {self.file.size():,} bytes while it was in use")


def read_index(folder: Path) -> dict[str, Any]:
    """The content of a cache's INDEX.json, unharmed and of this version; the files it lists are not looked at."""
    if not (folder / INDEX).exists():
        raise torn_error(folder, f"{INDEX} is missing")
    index = read_object(folder / INDEX, "delete the folder, and the same command makes it anew", ImageSourceError)
    if index.get("sha256") != object_digest(index):
        raise torn_error(folder, f"{INDEX} was changed")
    if index.get("schema") != SCHEMA:
        raise ImageSourceError(
            f"the cache in {folder} has format {str(index.get('schema'))[:20]}, and this version reads {SCHEMA}: "
            "delete the folder, and the cache is made anew"
        )
    try:
        check_form(Index, index)
    except ValueError as error:
        raise torn_error(folder, f"in {INDEX}, {str(error).rstrip('.')}") from error
    if odd := next((at for at in index["unreadable"] if not at.isdecimal()), None):
        raise torn_error(folder, f"{INDEX} counts {odd[:20]!r} among the images")
    return index


def verify(folder: Path) -> None:
    """ImageSourceError where a byte of a cache is not what was written. It reads all of it, at a GB or so a second."""
    index = read_index(folder)
    try:
        found = file_digest(folder / ARRAYS)
        if found != index["files"][ARRAYS]:
            raise torn_error(folder, f"{ARRAYS} was changed")
        with open(folder / PIXELS, "rb") as file:
            size = file.seek(0, 2)
            expected = HEADER + sum(block["bytes"] for block in index["files"][PIXELS])
            if size != expected:
                raise torn_error(folder, f"{PIXELS} has {size} bytes instead of {expected}")
            file.seek(HEADER)
            for block in index["files"][PIXELS]:
                if next_sha256(file, block["bytes"]) != block["sha256"]:
                    raise torn_error(folder, f"{PIXELS} was changed")
    except OSError as error:
        raise torn_error(folder, f"{error.filename} cannot be read, {error.strerror}") from error
    mapped(folder)


def next_sha256(file: Any, count: int) -> str:
    """The sha256 of the next bytes of a file."""
    found = hashlib.sha256()
    while count > 0 and (piece := file.read(min(count, 2**22))):
        found.update(piece)
        count -= len(piece)
    return found.hexdigest()


def mapped(folder: Path) -> mmap.mmap:
    """The file of pixels, of which nothing is read yet."""
    try:
        np.load(folder / PIXELS, mmap_mode="r", allow_pickle=False)  # its header is what it should be
        with open(folder / PIXELS, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise torn_error(folder, f"{PIXELS} cannot be mapped") from error


def torn_error(folder: Path, what: str) -> ImageSourceError:
    """The error of a cache that is not what was written."""
    return ImageSourceError(
        f"the cache in {folder} is not what was written ({what}): delete the folder, and the same command makes it anew"
    )
