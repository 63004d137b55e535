"""The images below a folder, by their names and what the file system says of each, in the order of their paths."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from ssl_backbones.data.digests import stamp_of
from ssl_backbones.data.formats import is_image, kind_of_name
from ssl_backbones.data.images import ImageSourceError
from ssl_backbones.data.kept_arrays import PIECE, marks_in
from ssl_backbones.data.keys import GrowingKeys, PathKeys
from ssl_backbones.data.threads import THREADS, UNDER_WAY, asked_of, in_turn

ASKED = 32
"""Files that are asked about one after the other, to see whether the file system takes its time."""
SLOW = 100e-6
"""Seconds of such a question above which several threads ask."""
TOGETHER = 8
"""Files that a thread asks about at a time."""


@dataclass(frozen=True)
class Listing:
    """The N images below a folder, in the order of their paths."""

    keys: PathKeys
    """Their paths relative to it."""
    sizes: np.ndarray
    """(N,) int64: bytes, -1 of a file that is not there."""
    marks: np.ndarray
    """(N,) int64, as `marks_in` has them."""
    folders: tuple[tuple[str, int], ...]
    """The folders right below it through which the paths lead, in order, each with a number of images that follow one
    another; an empty name for images in the folder itself."""


def listing_of(root: Path, others: Counter[str]) -> Listing:
    """Look at all images below a folder, at each once; counts other files by suffix.

    Raises ImageSourceError where a folder cannot be listed.
    """
    keys = GrowingKeys()
    folders: list[tuple[str, int]] = []

    def stamps(pool: ThreadPoolExecutor) -> Iterator[tuple[int, int, int, int]]:
        for here, prefix, names in walk(root, "", frozenset()):
            images = [name for name in names if counted(here, name, others)]
            if not images:
                continue
            keys.add(*PathKeys.packed(images, prefix))
            yield from stamps_of(here, images, pool)
            first = prefix.partition("/")[0]
            before = folders.pop()[1] if folders and folders[-1][0] == first else 0
            folders.append((first, before + len(images)))

    asked_at = time.time_ns()
    with ThreadPoolExecutor(THREADS) as pool:
        sizes, marks = marks_in(stamps(pool), asked_at)
    return Listing(keys.finished(), sizes, marks, tuple(folders))


def stamps_of(here: str, names: list[str], pool: ThreadPoolExecutor) -> Iterator[tuple[int, int, int, int]]:
    """The stamps of a folder's files in turn, by several threads where the file system takes its time.

    As one in a network does; elsewhere threads would cost more than they save.
    """

    def ask(name: str) -> tuple[int, int, int, int]:
        return stamp_of(f"{here}{os.sep}{name}")

    began = time.perf_counter()
    first = [ask(name) for name in names[:ASKED]]
    slow = time.perf_counter() - began > SLOW * len(first)
    yield from first
    if not slow:
        yield from map(ask, islice(names, ASKED, None))
        return
    parts = (names[at : at + TOGETHER] for at in range(ASKED, len(names), TOGETHER))
    for stamps in in_turn(pool, partial(asked_of, ask), parts, UNDER_WAY * THREADS):
        yield from stamps


def images_below(root: Path) -> Iterator[str]:
    """Paths of the images below the root, relative to it, with slashes on every system, in their order.

    Raises ImageSourceError where a folder cannot be listed.
    """
    for here, prefix, names in walk(root, "", frozenset()):
        yield from (prefix + name for name in names if is_image(f"{here}{os.sep}{name}", name))


def counted(here: str, name: str, others: Counter[str]) -> bool:
    """True for an image; another file is counted."""
    if is_image(f"{here}{os.sep}{name}", name):
        return True
    others[kind_of_name(name)] += 1
    return False


def walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, str, list[str]]]:
    """The files below a folder in the order of their paths: some of one folder that follow one another, at a time.

    Each time with the folder and the beginning of its path. A folder that is one of those above it is a circle of
    links, and left out.
    """
    try:
        status = folder.stat()
        here = above | {(status.st_dev, status.st_ino)}
        if (status.st_dev, status.st_ino) in above:
            return
        with os.scandir(folder) as entries:
            names = sorted(sorted_by(entry) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise ImageSourceError(f"{str(folder)!r} cannot be listed ({error.strerror}): make it readable") from error
    files: list[str] = []
    for name in names:
        is_folder = name.endswith("/")
        if not is_folder:
            files.append(name)
        if files and (is_folder or len(files) == PIECE):
            yield str(folder), prefix, files
            files = []
        if is_folder and name != "/":
            yield from walk(folder / name[:-1], prefix + name, here)
    if files:
        yield str(folder), prefix, files


def sorted_by(entry: os.DirEntry[str]) -> str:
    """The text by which an entry has its place among the others: its name, of a folder with a slash at its end.

    A slash alone for what is neither file nor folder.
    """
    kind = kind_of(entry)
    return entry.name if kind == "file" else f"{entry.name}/" if kind == "folder" else "/"


def kind_of(entry: os.DirEntry[str]) -> Literal["folder", "file", "neither"]:
    """The kind of entry behind a name; a link that leads nowhere is a file, and a pipe or a device is neither."""
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() or entry.is_symlink() else "neither"
    except OSError:  # a link to itself
        return "file"
