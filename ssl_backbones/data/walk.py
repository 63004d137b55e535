"""The images below a folder, by their names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ssl_backbones.data.decode import SUFFIXES
from ssl_backbones.data.images import ImageSourceError


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
        elif kind == "file" and looks_like_image(entry.name):
            yield prefix + entry.name


def kind_of(entry: os.DirEntry[str]) -> Literal["folder", "file", "neither"]:
    """What lies behind a name; a link that leads nowhere is a file, and a pipe or a device is neither."""
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() or entry.is_symlink() else "neither"
    except OSError:  # a link to itself
        return "file"


def looks_like_image(name: str) -> bool:
    """Whether a file's name ends as that of an image."""
    return name.lower().endswith(SUFFIXES)
