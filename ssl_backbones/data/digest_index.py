"""Digests of images, kept from start to start: only files that changed in size, times or inode are read again.

An index is held against a few of the files at every start. A file that changed within the last seconds is not taken
into it: the clock of its file system could miss the next change.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ssl_backbones.data.digests import WIDTH, as_rows, digest_of_file, of_each, spread, stamp_of
from ssl_backbones.data.kept_arrays import are_texts, keep_arrays, place_of, read_arrays, settled, stamps_in, turn
from ssl_backbones.data.keys import PathKeys
from ssl_backbones.data.stored import File, is_versioned, known_as, stamp

KEPT_FROM = 1000
"""Images from which on an index is worth its place: fewer are read anew in less than a second."""
COMPARED = 64
"""Images that an index is held against whenever it is used."""
WHOLLY = " whole"
"""The end of the names of indices of whole digests."""
Ask = Callable[[str], bytes]
"""The digest of the file at a path."""


@dataclass(frozen=True)
class Contents:
    """The sizes and digests of N files."""

    sizes: np.ndarray
    """(N,) int64: bytes, -1 of a file that is not there."""
    digests: np.ndarray
    """(N, WIDTH) uint8."""


@dataclass(frozen=True)
class Index:
    """The content of an index: of M files that are an image each, or of a table of N images in M files."""

    keys: PathKeys
    """Of the files."""
    stamps: np.ndarray
    """(M, 4) int64, as `stamp_of` has them; a size of -1 where the digests are not to be relied on."""
    digests: np.ndarray
    """(M, WIDTH) or (N, WIDTH) uint8."""

    def rows_of(self, keys: PathKeys, stamps: np.ndarray) -> np.ndarray:
        """The rows (M,) of files whose stamps (M, 4) are still the same; -1 for all others."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        if self.keys.equals(keys):
            rows, there = np.arange(len(keys)), self.stamps
        else:
            row_of = {key: row for row, key in enumerate(self.keys)}
            rows = np.array([row_of.get(key, -1) for key in keys], np.int64)
            there = self.stamps[rows]
        same = (rows >= 0) & (stamps[:, 0] >= 0)
        for column in range(4):  # one after the other, in little memory
            same &= there[:, column] == stamps[:, column]
        rows[~same] = -1
        return rows


NOTHING = Index(PathKeys([]), np.empty((0, 4), np.int64), np.empty((0, WIDTH), np.uint8))


@dataclass(frozen=True)
class Files:
    """M files below a root, as they were when they were asked about."""

    root: Path
    keys: PathKeys
    stamps: np.ndarray
    """(M, 4) int64, as `stamp_of` has them."""
    asked_at: int
    """The time in ns before the first of them was asked."""

    def path(self, row: int) -> str:
        """The path of a file."""
        return os.path.join(self.root, self.keys[row])

    def known(self) -> dict[str, np.ndarray]:
        """The arrays that an index of the same files holds."""
        return {"keys": self.keys.block, "ends": self.keys.ends, "stamps": self.stamps}


def contents_of(root: Path, keys: PathKeys, name: str, whole: bool = False) -> Contents:
    """The sizes and digests of files below a root, of which those are read that an index of that name does not know.

    Whole digests have an index of their own.
    """
    asked_at = time.time_ns()
    paths = of_each(range(len(keys)), lambda row: stamp_of(os.path.join(root, keys[row])), f"files in {root} asked")
    return contents_as_asked(Files(root, keys, stamps_in(paths), asked_at), name, whole)


def contents_as_asked(files: Files, name: str, whole: bool = False) -> Contents:
    """The same for files that were asked about already."""
    ask = partial(digest_of_file, whole=True) if whole else digest_of_file
    keys, sizes = files.keys, files.stamps[:, 0].copy()
    place = place_of(f"{name}{WHOLLY * whole}") if len(keys) >= KEPT_FROM else None
    index = NOTHING if place is None else read(place, files.known())
    rows = checked(index, index.rows_of(keys, files.stamps), files, ask)
    if (rows >= 0).all() or place is None:
        return Contents(sizes, digests_by(index, rows, files, ask))
    with turn(place):
        index = read(place, files.known())  # another process may have written it
        rows = checked(index, index.rows_of(keys, files.stamps), files, ask)
        digests = digests_by(index, rows, files, ask)
        if (rows < 0).any():
            keep(place, Index(keys, settled(files.stamps, files.asked_at), digests))
    return Contents(sizes, digests)


def contents_of_list(root: Path, keys: PathKeys, whole: bool = False) -> Contents:
    """The same for the files of a list, whose index is its own: several lists may name files below one root."""
    return contents_of(root, keys, f"{root.absolute()} {hashlib.sha256(keys.block.data).hexdigest()}", whole)


def digests_of_rows(
    files: Sequence[File],
    count: int,
    digest_at: Callable[[int], bytes],
    name: str,
    whole: bool = False,
    compared: int | None = None,
) -> np.ndarray:
    """The digests (N, WIDTH) of a table's `count` rows, read by `digest_at` where no index knows them.

    An index does as long as none of the table's files has changed, and so many of the rows are as it says. `name` names
    the table, and its column of images.
    """
    keys = PathKeys(map(known_as, files))
    asked_at = time.time_ns()
    stamps = stamps_in(map(stamp, files))
    looked_at = 0 if all(map(is_versioned, files)) else COMPARED if compared is None else compared
    which = f"{name} {count} {hashlib.sha256(keys.block.data).hexdigest()}{WHOLLY * whole}"
    place = place_of(which) if len(keys) and count >= KEPT_FROM else None

    def found() -> np.ndarray:
        return as_rows(list(of_each(range(count), digest_at, f"images of {name} read for their digests")))

    def known(index: Index) -> np.ndarray | None:
        if len(index.digests) != count or (index.rows_of(keys, stamps) < 0).any():
            return None
        agree = all(digest_at(at) == index.digests[at].tobytes() for at in spread(count, looked_at))
        return index.digests if agree else None

    if place is None:
        return found()
    digests = known(read(place))
    if digests is None:
        with turn(place):
            digests = known(read(place))  # another process may have written it
            if digests is None:
                digests = found()
                keep(place, Index(keys, settled(stamps, asked_at), digests))
    return digests


def digests_by(index: Index, rows: np.ndarray, files: Files, ask: Ask) -> np.ndarray:
    """The digests (N, WIDTH) of all files: from the index where it has a row, else read."""
    known = rows >= 0
    if known.all() and np.array_equal(rows, np.arange(len(index.digests))):
        return index.digests
    digests = np.zeros((len(rows), WIDTH), np.uint8)
    digests[known] = index.digests[rows[known]]
    unknown = np.flatnonzero(~known)
    what = f"images in {files.root} read for their digests"
    found = of_each(unknown.tolist(), lambda row: ask(files.path(row)), what)
    for row, digest in zip(unknown, found, strict=True):
        digests[row] = np.frombuffer(digest, np.uint8)
    return digests


def checked(index: Index, rows: np.ndarray, files: Files, ask: Ask) -> np.ndarray:
    """The rows, or none of them where one of a few files is not what the index says although its stamp is the same."""
    known = np.flatnonzero(rows >= 0)
    some = known[spread(len(known), COMPARED)]
    if all(ask(files.path(at)) == index.digests[rows[at]].tobytes() for at in some):
        return rows
    return np.full(len(rows), -1)


def read(place: Path, known: Mapping[str, np.ndarray] | None = None) -> Index:
    """The content of an index file; nothing where there is none, or where it is not what was written.

    What is equal to arrays that are `known` is those, and takes no memory besides.
    """
    arrays = read_arrays(place, ("keys", "ends", "stamps", "digests"), known or {})
    if arrays is None or not fits(arrays):
        return NOTHING
    return Index(PathKeys.of(arrays["keys"], arrays["ends"]), arrays["stamps"], arrays["digests"])


def fits(arrays: Mapping[str, np.ndarray]) -> bool:
    """True if the arrays have the types and shapes of an index, and the keys end inside their block."""
    stamps, digests = arrays["stamps"], arrays["digests"]
    if not are_texts(arrays["keys"], arrays["ends"]) or (stamps.dtype.str, digests.dtype.str) != ("<i8", "|u1"):
        return False
    return stamps.shape == (len(arrays["ends"]) - 1, 4) and digests.ndim == 2 and digests.shape[1] == WIDTH


def keep(place: Path, index: Index) -> None:
    """Write an index."""
    keys = index.keys.block
    keep_arrays(place, {"keys": keys, "ends": index.keys.ends, "stamps": index.stamps, "digests": index.digests})
