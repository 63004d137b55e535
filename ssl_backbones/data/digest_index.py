"""Digests of images, kept from start to start: only files that changed in size, times or inode are read again.

An index is a file in the user's cache folder, which SSL_BACKBONES_CACHE moves and anybody may delete. It is written
whole or not at all, sealed with a digest of its own, and held against a few of the files at every start. A file that
changed within the last seconds is not taken into it: the clock of its file system could miss the next change.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ssl_backbones.data.digests import PATIENCE, WIDTH, as_rows, digest_of_file, of_each, spread, stamp_of
from ssl_backbones.data.keys import PathKeys
from ssl_backbones.distributed import say
from ssl_backbones.files import make_folder, write_file
from ssl_backbones.locks import Lock, LockedError

logger = logging.getLogger(__name__)

VARIABLE = "SSL_BACKBONES_CACHE"
SCHEMA = "1"
KEPT_FROM = 1000
"""Images from which on an index is worth its place: fewer are read anew in less than a second."""
LARGEST = 4 * 2**30
"""Bytes of an index that are looked at."""
COMPARED = 64
"""Images that an index is held against whenever it is used."""
SETTLED = 2_000_000_000
"""Nanoseconds for which a file must not have changed, to be taken into an index."""
WAIT_AT_MOST = 600.0
"""Seconds that a process waits for another that reads the same files."""


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
        if self.keys.block == keys.block and np.array_equal(self.keys.ends, keys.ends):
            rows = np.arange(len(keys))
        else:
            row_of = {key: row for row, key in enumerate(self.keys)}
            rows = np.array([row_of.get(key, -1) for key in keys], np.int64)
        if not len(self.keys):
            return np.full(len(keys), -1)
        same = (rows >= 0) & (stamps[:, 0] >= 0) & (self.stamps[rows] == stamps).all(axis=1)
        return np.where(same, rows, -1)


NOTHING = Index(PathKeys([]), np.empty((0, 4), np.int64), np.empty((0, WIDTH), np.uint8))


def contents_of(root: Path, keys: PathKeys, name: str, whole: bool = False) -> Contents:
    """The sizes and digests of files below a root, of which those are read that an index of that name does not know.

    Whole digests have an index of their own.
    """
    ask = partial(digest_of_file, whole=True) if whole else digest_of_file
    paths = [os.path.join(root, key) for key in keys]
    asked_at = time.time_ns()
    stamps = as_stamps(of_each(paths, stamp_of, f"files in {root} asked for their size"))
    place = place_of(f"{name}{WHOLLY * whole}") if len(keys) >= KEPT_FROM else None
    index = NOTHING if place is None else read(place)
    rows = checked(index, index.rows_of(keys, stamps), paths, ask)
    if (rows >= 0).all() or place is None:
        return Contents(stamps[:, 0], digests_by(index, rows, paths, root, ask))
    with turn(place):
        index = read(place)  # another process may have written it
        rows = checked(index, index.rows_of(keys, stamps), paths, ask)
        digests = digests_by(index, rows, paths, root, ask)
        if (rows < 0).any():
            keep(place, Index(keys, settled(stamps, asked_at), digests))
    return Contents(stamps[:, 0], digests)


def contents_of_list(root: Path, keys: PathKeys, whole: bool = False) -> Contents:
    """The same for the files of a list, whose index is its own: several lists may name files below one root."""
    return contents_of(root, keys, f"{root.absolute()} {hashlib.sha256(keys.block).hexdigest()}", whole)


def digests_of_rows(
    files: Sequence[Path], count: int, digest_at: Callable[[int], bytes], name: str, whole: bool = False
) -> np.ndarray:
    """The digests (N, WIDTH) of a table's `count` rows, read by `digest_at` where no index knows them.

    An index does as long as none of the table's files has changed. `name` names the table, and its column of images.
    """
    keys = PathKeys(str(file.absolute()) for file in files)
    asked_at = time.time_ns()
    stamps = as_stamps(map(stamp_of, keys))
    which = f"{name} {count} {hashlib.sha256(keys.block).hexdigest()}{WHOLLY * whole}"
    place = place_of(which) if len(keys) and count >= KEPT_FROM else None

    def found() -> np.ndarray:
        return as_rows(list(of_each(range(count), digest_at, f"images of {name} read for their digests")))

    def known(index: Index) -> np.ndarray | None:
        if len(index.digests) != count or (index.rows_of(keys, stamps) < 0).any():
            return None
        agree = all(digest_at(at) == index.digests[at].tobytes() for at in spread(count, COMPARED))
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


def as_stamps(stamps: Iterable[tuple[int, int, int, int]]) -> np.ndarray:
    """Stamps as an array (M, 4) int64."""
    return np.array(list(stamps), np.int64).reshape(-1, 4)


def settled(stamps: np.ndarray, asked_at: int) -> np.ndarray:
    """The stamps (M, 4), with -1 for files that changed too short a time before they were asked to be relied on."""
    return np.where(stamps[:, 1:3].max(axis=1, keepdims=True) < asked_at - SETTLED, stamps, -1)


def digests_by(index: Index, rows: np.ndarray, paths: list[str], root: Path, ask: Ask) -> np.ndarray:
    """The digests (N, WIDTH) of all files: from the index where it has a row, else read."""
    digests = np.zeros((len(paths), WIDTH), np.uint8)
    known = rows >= 0
    digests[known] = index.digests[rows[known]]
    unknown = np.flatnonzero(~known)
    found = of_each([paths[at] for at in unknown], ask, f"images in {root} read for their digests")
    if len(unknown):
        digests[unknown] = as_rows(list(found))
    return digests


def checked(index: Index, rows: np.ndarray, paths: list[str], ask: Ask) -> np.ndarray:
    """The rows, or none of them where one of a few files is not what the index says although its stamp is the same."""
    known = np.flatnonzero(rows >= 0)
    some = known[spread(len(known), COMPARED)]
    if all(ask(paths[at]) == index.digests[rows[at]].tobytes() for at in some):
        return rows
    return np.full(len(rows), -1)


def place_of(name: str) -> Path | None:
    """The file of an index; None where this user has no home."""
    given = os.environ.get(VARIABLE) or os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(given or "~/.cache").expanduser()
    except RuntimeError:
        return None
    if not os.environ.get(VARIABLE):
        folder /= "ssl_backbones"
    return folder / "digests" / f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}.safetensors"


def read(place: Path) -> Index:
    """The content of an index file; nothing where there is none, or where it is not what was written."""
    try:
        if place.stat().st_size > LARGEST:
            return NOTHING
        with safe_open(place, framework="np") as file:
            about = file.metadata() or {}
            arrays: dict[str, np.ndarray] = {
                name: file.get_tensor(name) for name in ("keys", "ends", "stamps", "digests")
            }
    except (OSError, SafetensorError, ValueError):
        return NOTHING
    if about.get("schema") != SCHEMA or about.get("seal") != seal(arrays) or not fits(arrays):
        return NOTHING
    return Index(PathKeys.of(arrays["keys"], arrays["ends"]), arrays["stamps"], arrays["digests"])


def fits(arrays: Mapping[str, np.ndarray]) -> bool:
    """True if the arrays have the types and shapes of an index, and the keys end inside their block."""
    keys, ends, stamps, digests = (arrays[name] for name in ("keys", "ends", "stamps", "digests"))
    kinds = [(array.dtype.str, array.ndim) for array in (keys, ends, stamps, digests)]
    if kinds != [("|u1", 1), ("<i8", 1), ("<i8", 2), ("|u1", 2)]:
        return False
    count = len(ends) - 1
    if count < 0 or stamps.shape != (count, 4) or digests.shape[1] != WIDTH:
        return False
    return ends[0] == 0 and ends[-1] == len(keys) and bool((np.diff(ends) >= 0).all())


def seal(arrays: Mapping[str, np.ndarray]) -> str:
    """A digest over all arrays, by which a changed index is known."""
    found = hashlib.blake2b(digest_size=WIDTH)
    for name in sorted(arrays):
        found.update(f"{name} {arrays[name].shape}".encode())
        found.update(np.ascontiguousarray(arrays[name]).data)
    return found.hexdigest()


def keep(place: Path, index: Index) -> None:
    """Write an index; a place that cannot be written to is told, and costs the next start."""
    arrays: dict[str, np.ndarray] = {
        "keys": np.frombuffer(index.keys.block, np.uint8),
        "ends": index.keys.ends,
        "stamps": index.stamps,
        "digests": index.digests,
    }
    try:
        write_file(place, save(arrays, {"schema": SCHEMA, "seal": seal(arrays)}))
    except OSError as error:
        logger.warning(
            "%s cannot be written (%s): the next start reads all images again", place, error.strerror or error
        )


@contextmanager
def turn(place: Path) -> Iterator[None]:
    """Wait until no other process reads the same files; where nothing can be locked, nobody waits."""
    begun, told = time.monotonic(), False
    lock = None
    while lock is None and time.monotonic() - begun < WAIT_AT_MOST:
        try:
            make_folder(place.parent)
            lock = Lock(place.with_suffix(".lock"))
        except LockedError as error:
            if not told and time.monotonic() - begun > PATIENCE:
                told = True
                say(f"another process reads the same images: waiting for {error}")
            time.sleep(0.1)
        except OSError:
            break
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
