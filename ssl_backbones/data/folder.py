"""A folder of image files, nested as it may be; with class folders where it has them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ssl_backbones.data.decode import SUFFIXES, USUAL_POLICY, DecodePolicy, decode
from ssl_backbones.data.images import Images, ImageSourceError
from ssl_backbones.data.keys import PathKeys, fingerprint_of

logger = logging.getLogger(__name__)


class ImageFolder(Images):
    """All images below a folder, in the order of their paths.

    Where no image lies in the folder itself and it has at least two folders, those are the classes, empty ones
    included; otherwise there are no labels. What begins with a dot is not looked at. Links are followed, out of the
    folder too, but not round in a circle. A link that leads nowhere counts as an unreadable photo.
    """

    def __init__(self, root: str | Path, policy: DecodePolicy = USUAL_POLICY) -> None:
        self.root = Path(root)
        self.policy = policy
        if not self.root.is_dir():
            raise ImageSourceError(f"{str(root)!r} is not a folder: give the folder that holds the images")
        paths = sorted(images_below(self.root))
        if not paths:
            raise ImageSourceError(
                f"there is no image in {str(root)!r} or below it: files ending in {', '.join(SUFFIXES)} are looked for"
            )
        self.keys = PathKeys(paths)
        self.classes = class_folders(self.root, paths)
        self.labels = labels_from(paths, self.classes) if self.classes else None

    def __getitem__(self, index: int) -> Image.Image:
        path = self.root / self.keys[index]
        return decode(path, str(path), self.policy)

    @cached_property  # mypy wants what it overrides to be read-only as well
    def fingerprint(self) -> str:  # type: ignore[override]
        """Taken at first use: it asks the disk for the size of every file."""
        return fingerprint_of(self.keys, self.labels, np.array([size_of(self.root / key) for key in self.keys]))


def images_below(root: Path) -> Iterator[str]:
    """Paths of the images below the root, relative to it, with slashes on every system."""
    yield from walk(root, "", frozenset())


def walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Images below one folder; a folder that is one of those above it is a circle of links, and left out."""
    try:
        status = folder.stat()
        here = above | {(status.st_dev, status.st_ino)}
        entries = list(os.scandir(folder))
    except OSError as error:
        raise ImageSourceError(f"{str(folder)!r} cannot be listed ({error.strerror}): make it readable") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        kind = kind_of(entry)
        if kind == "folder":
            below = entry.stat()
            if (below.st_dev, below.st_ino) not in here:
                yield from walk(Path(entry.path), f"{prefix}{entry.name}/", here)
        elif kind == "file" and entry.name.lower().endswith(SUFFIXES):
            yield prefix + entry.name


def kind_of(entry: os.DirEntry[str]) -> Literal["folder", "file", "neither"]:
    """What lies behind a name; a link that leads nowhere is a file, and a pipe or a device is neither."""
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() or entry.is_symlink() else "neither"
    except OSError:  # a link to itself
        return "file"


def class_folders(root: Path, paths: list[str]) -> list[str]:
    """Names of the classes, sorted; none where an image lies outside of the folders, or there is one folder only."""
    if any("/" not in path for path in paths):
        return []
    found = {path.split("/", 1)[0] for path in paths}
    folders = {
        entry.name for entry in os.scandir(root) if kind_of(entry) == "folder" and not entry.name.startswith(".")
    }
    if len(folders) < 2:
        return []
    empty = sorted(folders - found)
    if empty:
        logger.warning("no image in %s below %s: kept as classes without photos", ", ".join(map(repr, empty)), root)
    return sorted(folders)


def labels_from(paths: list[str], classes: list[str]) -> np.ndarray:
    """The label of each path (N,): the number of its first folder among the classes."""
    number = {name: label for label, name in enumerate(classes)}
    return np.array([number[path.split("/", 1)[0]] for path in paths], np.int64)


def size_of(path: Path) -> int:
    """Size in bytes, or -1 of a file that cannot be asked."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
