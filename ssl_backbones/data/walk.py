"""The images below a folder, by their names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ssl_backbones.data.formats import is_image, kind_of_name
from ssl_backbones.data.images import ImageSourceError


def images_below(root: Path, others: Counter[str] | None = None) -> Iterator[str]:
    """Paths of the images below the root, relative to it, with slashes on every system; counts other files by suffix.

    Raises ImageSourceError where a folder cannot be listed.
    """
    yield from walk(root, "", frozenset(), Counter() if others is None else others)


def walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]], others: Counter[str]) -> Iterator[str]:
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
                yield from walk(Path(entry.path), f"{prefix}{entry.name}/", here, others)
        elif kind == "file":
            if is_image(entry.path, entry.name):
                yield prefix + entry.name
            else:
                others[kind_of_name(entry.name)] += 1


def kind_of(entry: os.DirEntry[str]) -> Literal["folder", "file", "neither"]:
    """The kind of entry behind a name; a link that leads nowhere is a file, and a pipe or a device is neither."""
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() or entry.is_symlink() else "neither"
    except OSError:  # a link to itself
        return "file"
