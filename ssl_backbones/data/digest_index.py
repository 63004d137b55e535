"""Digests of images, kept from start to start: only files that changed in size, times or inode are read again.

An index is held against a few of the files at every start. A file that changed within the last seconds is not taken
into it: the clock of its file system could miss the next change.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ssl_backbones.data.digests import WIDTH, are_lost, as_rows, digest_of_file, spread, stamp_of
from ssl_backbones.data.kept_arrays import are_texts, keep_arrays, marks_in, place_of, read_arrays, turn
from ssl_backbones.data.keys import PathKeys
from ssl_backbones.data.stored import File, is_versioned, known_as, stamp
from ssl_backbones.data.threads import THREADS, of_each
from ssl_backbones.data.verifying import (
    GONE,
    LOST,
    NEW,
    OTHER,
    TOUCHED,
    UNKNOWN,
    YOUNG,
    agree,
    is_verifying,
    require_kept,
    tell,
)
from ssl_backbones.distributed import say

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
    """Keys of the files."""
    sizes: np.ndarray
    """(M,) int64: bytes."""
    marks: np.ndarray
    """(M,) int64, as `marks_in` has them; 0 where the digests are not to be relied on."""
    digests: np.ndarray
    """(M, WIDTH) or (N, WIDTH) uint8."""

    def places_of(self, keys: PathKeys) -> np.ndarray:
        """The rows (M,) of files by their keys alone; -1 for those that are not here."""
        kind = np.int32 if len(self.keys) < 2**31 else np.int64
        if not len(self.keys):
            return np.full(len(keys), -1, kind)
        if self.keys.equals(keys):
            return np.arange(len(keys), dtype=kind)
        row_of = {key: row for row, key in enumerate(self.keys)}
        return np.array([row_of.get(key, -1) for key in keys], kind)

    def rows_of(self, files: Files) -> np.ndarray:
        """The rows (M,) of files whose sizes and marks are still the same; -1 for all others."""
        rows = self.places_of(files.keys)
        if not len(self.keys):
            return rows
        at: slice | np.ndarray = slice(None) if self.keys.equals(files.keys) else rows
        same = (self.sizes[at] == files.sizes) & (self.marks[at] == files.marks) & (files.marks != 0)
        rows[~same] = -1
        return rows

    def changes(self, files: Files, rows: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
        """The kinds of change of files without a row of those (M,): the places of each kind's files, and its words."""
        places = self.places_of(files.keys)
        new, lost = places < 0, files.sizes < 0
        young = (self.marks[places] == 0) & (self.sizes[places] == files.sizes)
        kinds = ((new, NEW), (~new & lost, LOST), (~new & ~lost & young, YOUNG), (~new & ~lost & ~young, TOUCHED))
        yield from ((np.flatnonzero((rows < 0) & kind), what) for kind, what in kinds)


NONE = np.empty(0, np.int64)
NOTHING = Index(PathKeys([]), NONE, NONE, np.empty((0, WIDTH), np.uint8))


@dataclass(frozen=True)
class Files:
    """M files below a root, as they were when they were asked about."""

    root: Path
    keys: PathKeys
    sizes: np.ndarray
    """(M,) int64: bytes, -1 of a file that is not there."""
    marks: np.ndarray
    """(M,) int64, as `marks_in` has them."""

    def path(self, row: int) -> str:
        """The path of a file."""
        return os.path.join(self.root, self.keys[row])

    def known(self) -> dict[str, np.ndarray]:
        """The arrays that an index of the same files holds."""
        return {"keys": self.keys.block, "ends": self.keys.ends, "sizes": self.sizes, "marks": self.marks}


def contents_of(root: Path, keys: PathKeys, name: str, whole: bool = False) -> Contents:
    """The sizes and digests of files below a root, of which those are read that an index of that name does not know.

    Whole digests have an index of their own; NotKeptError where they are verified and it is not kept.
    """
    if whole:
        require_kept(place_of(f"{name}{WHOLLY}"))
    asked_at = time.time_ns()
    stamps = of_each(range(len(keys)), lambda row: stamp_of(os.path.join(root, keys[row])), f"files in {root} asked")
    return contents_as_asked(Files(root, keys, *marks_in(stamps, asked_at)), name, whole)


def contents_as_asked(files: Files, name: str, whole: bool = False) -> Contents:
    """The same for files that were asked about already."""
    ask = partial(digest_of_file, whole=True) if whole else digest_of_file
    place = place_of(f"{name}{WHOLLY * whole}") if len(files.keys) >= KEPT_FROM else None
    index = NOTHING if place is None else read(place, files.known())
    rows = checked(index, index.rows_of(files), files, ask)
    if (rows >= 0).all() or place is None:
        return Contents(files.sizes, digests_by(index, rows, files, ask))
    with turn(place):
        if not is_verifying():
            index = read(place, files.known())  # another process may have written it
            rows = checked(index, index.rows_of(files), files, ask)
        digests = digests_by(index, rows, files, ask)
        if (rows < 0).any():
            marks = np.where(are_lost(files.sizes, digests), 0, files.marks)
            keep(place, Index(files.keys, files.sizes, marks, digests))
    return Contents(files.sizes, digests)


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
    full: bool = False,
    threads: int = THREADS,
) -> np.ndarray:
    """The digests (N, WIDTH) of a table's `count` rows, read by `digest_at` in threads where no index knows them.

    An index does as long as none of the table's files has changed, and so many of the rows are as it says. `name` names
    the table, and its column of images. Of a `full` one every row has an image: nothing is kept where one could not be
    read. NotKeptError where whole digests are verified and none are kept.
    """
    keys = PathKeys(map(known_as, files))
    asked_at = time.time_ns()
    now = Files(Path(), keys, *marks_in(map(stamp, files), asked_at))
    usual = 0 if all(map(is_versioned, files)) else COMPARED if compared is None else compared
    which = f"{name} {count} {hashlib.sha256(keys.block.data).hexdigest()}{WHOLLY * whole}"
    place = place_of(which) if len(keys) and count >= KEPT_FROM else None
    if whole:
        require_kept(place)
    known = partial(kept_digests, now=now, name=name, count=count, digest_at=digest_at, usual=usual, threads=threads)
    asked = of_each(range(count), digest_at, f"images of {name} read for their digests", threads=threads)
    if place is None:
        tell([name], UNKNOWN)
        return as_rows(list(asked))
    digests = known(read(place))
    if digests is None:
        with turn(place):
            digests = None if is_verifying() else known(read(place))  # another process may have written it
            if digests is None:
                digests = as_rows(list(asked))
                if not full or digests.any(axis=1).all():
                    keep(place, Index(keys, now.sizes, now.marks, digests))
    return digests


def kept_digests(
    index: Index, now: Files, name: str, count: int, digest_at: Callable[[int], bytes], usual: int, threads: int
) -> np.ndarray | None:
    """The digests (N, WIDTH) of a table's rows that an index holds; None where it is of others, as far as seen."""
    if not len(index.keys) or len(index.digests) != count:
        tell([name], UNKNOWN)
        return None
    rows = index.rows_of(now)
    if (rows < 0).any():
        for changed, what in index.changes(now, rows):
            tell([name] if len(changed) else [], what)
        return None
    same = agree(index.digests, digest_at, usual, f"images of {name} held against their index", threads)
    tell([] if same else [name], OTHER)
    return index.digests if same else None


def digests_by(index: Index, rows: np.ndarray, files: Files, ask: Ask) -> np.ndarray:
    """The digests (N, WIDTH) of all files: from the index where it has a row, else read."""
    known = rows >= 0
    if known.all() and index.keys.equals(files.keys):
        return index.digests
    digests = np.zeros((len(rows), WIDTH), np.uint8)
    digests[known] = index.digests[rows[known]]
    unknown: Sequence[int] = np.flatnonzero(~known) if known.any() else range(len(rows))  # type: ignore[assignment]
    for what in ("read for their digests", "that could not be read asked again"):
        found = of_each(unknown, lambda row: ask(files.path(row)), f"images in {files.root} {what}")
        for row, digest in zip(unknown, found, strict=True):
            digests[row] = np.frombuffer(digest, np.uint8)
        unknown = np.flatnonzero(are_lost(files.sizes, digests))  # type: ignore[assignment]
    if len(unknown):
        say(f"{len(unknown)} files in {files.root} are there and cannot be read: the next start asks for them again")
    return digests


def checked(index: Index, rows: np.ndarray, files: Files, ask: Ask) -> np.ndarray:
    """The rows, or none of them where one of a few files is not what the index says although its mark is the same."""
    known = rows >= 0
    places: Sequence[int] = range(len(rows)) if known.all() else np.flatnonzero(known)  # type: ignore[assignment]
    if is_verifying():
        return verified(index, rows, places, files, ask)
    some = [int(places[at]) for at in spread(len(places), COMPARED)]
    if all(ask(files.path(at)) == index.digests[rows[at]].tobytes() for at in some):
        return rows
    return np.full_like(rows, -1)


def verified(index: Index, rows: np.ndarray, places: Sequence[int], files: Files, ask: Ask) -> np.ndarray:
    """The rows without those of files that are not what the index says, each of which is read; tells what changed."""
    what = f"images in {files.root} held against their index"
    found = of_each(places, lambda row: ask(files.path(row)), what)
    wrong = [at for at, one in zip(places, found, strict=True) if one != index.digests[rows[at]].tobytes()]
    if not len(index.keys):
        tell(files.keys, UNKNOWN)
    else:
        for changed, what in index.changes(files, rows):
            tell([files.keys[int(at)] for at in changed], what)
        if not index.keys.equals(files.keys):
            tell(sorted(set(index.keys) - set(files.keys)), GONE)
    tell([files.keys[int(at)] for at in wrong], OTHER)
    rows[wrong] = -1
    return rows


def read(place: Path, known: Mapping[str, np.ndarray] | None = None) -> Index:
    """The content of an index file; nothing where there is none, or where it is not what was written.

    What is equal to arrays that are `known` is those, and takes no memory besides.
    """
    arrays = read_arrays(place, ("keys", "ends", "sizes", "marks", "digests"), known or {})
    if arrays is None or not fits(arrays):
        return NOTHING
    keys = PathKeys.of(arrays["keys"], arrays["ends"])
    return Index(keys, arrays["sizes"], arrays["marks"], arrays["digests"])


def fits(arrays: Mapping[str, np.ndarray]) -> bool:
    """True if the arrays have the types and shapes of an index, and the keys end inside their block."""
    digests, count = arrays["digests"], len(arrays["ends"]) - 1
    if not are_texts(arrays["keys"], arrays["ends"]) or digests.dtype.str != "|u1":
        return False
    if any((arrays[name].dtype.str, arrays[name].shape) != ("<i8", (count,)) for name in ("sizes", "marks")):
        return False
    return digests.ndim == 2 and digests.shape[1] == WIDTH


def keep(place: Path, index: Index) -> None:
    """Write an index."""
    keys, ends = index.keys.block, index.keys.ends
    keep_arrays(
        place, {"keys": keys, "ends": ends, "sizes": index.sizes, "marks": index.marks, "digests": index.digests}
    )
