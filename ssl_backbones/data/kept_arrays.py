"""Arrays that are kept from start to start, in files of the user's cache folder that anybody may delete.

SSL_BACKBONES_CACHE moves the folder. A file is written whole or not at all, and sealed with a digest of its own: one
that is not what was written is as good as none.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ssl_backbones.data.digests import PATIENCE, WIDTH
from ssl_backbones.distributed import say
from ssl_backbones.files import make_folder, write_file
from ssl_backbones.locks import Lock, LockedError

logger = logging.getLogger(__name__)

PIECE = 2**16
"""Rows that are compared at a time."""
VARIABLE = "SSL_BACKBONES_CACHE"
SCHEMA = "1"
LARGEST = 4 * 2**30
"""Bytes of a file that are looked at."""
SETTLED = 2_000_000_000
"""Nanoseconds for which a file must not have changed, for what is known of it to be kept."""
WAIT_AT_MOST = 600.0
"""Seconds that a process waits for another that reads the same files."""


def place_of(name: str, folder: str = "digests") -> Path | None:
    """The file in which arrays of a name are kept; None where this user has no home."""
    given = os.environ.get(VARIABLE) or os.environ.get("XDG_CACHE_HOME")
    try:
        cache = Path(given or "~/.cache").expanduser()
    except RuntimeError:
        return None
    if not os.environ.get(VARIABLE):
        cache /= "ssl_backbones"
    return cache / folder / f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}.safetensors"


def read_arrays(
    place: Path, names: Sequence[str], known: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray] | None:
    """The arrays of these names; None where there is no file, or where it is not what was written.

    Of those that are equal to `known` ones, the latter.
    """
    try:
        if place.stat().st_size > LARGEST:
            return None
        arrays: dict[str, np.ndarray] = {}
        for name in names:  # opened for each, since a file that was read is memory until it is closed
            with safe_open(place, framework="np") as file:
                about = file.metadata() or {}
                arrays[name] = one_of(file, name, (known or {}).get(name))
    except (OSError, SafetensorError, ValueError):
        return None
    return arrays if about.get("schema") == SCHEMA and about.get("seal") == seal(arrays) else None


def one_of(file: Any, name: str, known: np.ndarray | None) -> np.ndarray:
    """The array in a file, or the one that is known where both are equal, which is seen some rows at a time."""
    if known is not None and [*known.shape] == (found := file.get_slice(name)).get_shape():
        bounds = [*range(0, len(known), PIECE), len(known)]
        if all(same(known[start:end], found[start:end]) for start, end in pairwise(bounds)):
            return known
    array: np.ndarray = file.get_tensor(name)
    return array


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """True for arrays (...) of one type with the same values."""
    return one.dtype == other.dtype and np.array_equal(one, other)


def keep_arrays(place: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays; a place that cannot be written to is told, and costs the next start."""
    content = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    try:
        make_folder(place.parent)
        write_file(place, save(content, {"schema": SCHEMA, "seal": seal(arrays)}))
    except OSError as error:
        logger.warning(
            "%s cannot be written (%s): the next start reads all images again", place, error.strerror or error
        )


def seal(arrays: Mapping[str, np.ndarray]) -> str:
    """A digest over all arrays, by which a changed file is known."""
    found = hashlib.blake2b(digest_size=WIDTH)
    for name in sorted(arrays):
        found.update(f"{name} {arrays[name].shape}".encode())
        found.update(np.ascontiguousarray(arrays[name]).data)
    return found.hexdigest()


def stamps_in(stamps: Iterable[tuple[int, int, int, int]]) -> np.ndarray:
    """Stamps of files, as `stamp_of` has them, as an array (M, 4) int64."""
    return np.fromiter(chain.from_iterable(stamps), np.int64).reshape(-1, 4)


def settled(stamps: np.ndarray, asked_at: int) -> np.ndarray:
    """The stamps (M, 4), with -1 for files that changed too short a time before they were asked to be relied on.

    The clock of their file system could miss the next change.
    """
    return np.where(stamps[:, 1:3].max(axis=1, keepdims=True) < asked_at - SETTLED, stamps, -1)


def are_texts(block: np.ndarray, ends: np.ndarray) -> bool:
    """True if arrays are the bytes of texts (B,), one behind the other, and the places where these end (N + 1,)."""
    if (block.dtype.str, block.ndim, ends.dtype.str, ends.ndim) != ("|u1", 1, "<i8", 1) or not len(ends):
        return False
    return ends[0] == 0 and ends[-1] == len(block) and bool((np.diff(ends) >= 0).all())


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
