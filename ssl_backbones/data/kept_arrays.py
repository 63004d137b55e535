"""Arrays that are kept from start to start, in files of the user's cache folder that anybody may delete.

SSL_BACKBONES_CACHE moves the folder. A file is written whole or not at all, and sealed with a digest of its own: one
that is not what was written is as good as none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from ssl_backbones.data.digests import WIDTH
from ssl_backbones.data.threads import PATIENCE
from ssl_backbones.distributed import say
from ssl_backbones.files import make_folder, replacing, telling
from ssl_backbones.locks import Lock, LockedError
from ssl_backbones.refusal import reason
from ssl_backbones.views.randomness import mixed

logger = logging.getLogger(__name__)

PIECE = 2**16
"""Rows that are compared at a time."""
LENGTH = 8
"""Bytes that tell the length of a header, whose own length is a multiple of it."""
KINDS = {"U8": "|u1", "I64": "<i8"}
"""Types of arrays, as a header names them and as numpy does."""
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

    Of those that are equal to `known` ones, the latter. Nothing is mapped, as what is read of a mapped file is memory.
    """
    try:
        if place.stat().st_size > LARGEST:
            return None
        with safe_open(place, framework="np") as checked:  # that the header is one, and the arrays lie in the file
            about = checked.metadata() or {}
        with open(place, "rb") as file:
            length = int.from_bytes(file.read(LENGTH), "little")
            header = json.loads(file.read(length))
            arrays = {name: one_of(file, LENGTH + length, header[name], (known or {}).get(name)) for name in names}
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
    return arrays if about.get("schema") == SCHEMA and about.get("seal") == seal(arrays) else None


def one_of(file: BinaryIO, start: int, about: Mapping[str, Any], known: np.ndarray | None) -> np.ndarray:
    """The array in a file, or the one that is known where both are equal, which is seen some rows at a time."""
    kind, shape = np.dtype(KINDS[about["dtype"]]), about["shape"]
    file.seek(start + about["data_offsets"][0])
    if known is not None and (known.dtype, [*known.shape]) == (kind, shape):
        width = math.prod(shape[1:])
        if all(
            np.array_equal(np.fromfile(file, kind, len(rows) * width), rows.reshape(-1))
            for rows in (known[at : at + PIECE] for at in range(0, len(known), PIECE))
        ):
            return known
        file.seek(start + about["data_offsets"][0])
    return np.reshape(np.fromfile(file, kind, math.prod(shape)), shape)


def keep_arrays(place: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays; a place that cannot be written to is told, and costs the next start."""
    try:
        make_folder(place.parent)
        with replacing(place) as file, telling(place):
            file.write(header_of(arrays))
            for array in arrays.values():
                file.write(np.ascontiguousarray(array).data)
    except OSError as error:
        logger.warning("%s cannot be written (%s): the next start reads all images again", place, reason(error))


def header_of(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The first bytes of a file of arrays that follow one another, in the form of safetensors."""
    names, end = {kind: name for name, kind in KINDS.items()}, 0
    header: dict[str, Any] = {"__metadata__": {"schema": SCHEMA, "seal": seal(arrays)}}
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": names[array.dtype.str], "shape": array.shape, "data_offsets": (begin, end)}
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % LENGTH)
    return len(content).to_bytes(LENGTH, "little") + content


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
    return np.where(is_settled(stamps, asked_at), stamps, -1)


def is_settled(stamps: np.ndarray, asked_at: int) -> np.ndarray:
    """True (M, 1) for stamps (M, 4) of files that changed long enough before they were asked."""
    found: np.ndarray = stamps[:, 1:3].max(axis=1, keepdims=True) < asked_at - SETTLED
    return found


def marks_in(stamps: Iterable[tuple[int, int, int, int]], asked_at: int) -> tuple[np.ndarray, np.ndarray]:
    """The sizes (M,) int64 of files by their stamps, and marks (M,) int64 of which another stamp has others.

    A mark is 64 bits of both times and the inode, mixed; 0 for a file whose stamp is not to be relied on.
    """
    sizes, marks, rest = [np.empty(0, np.int64)], [np.empty(0, np.int64)], iter(stamps)
    while len(part := stamps_in(islice(rest, PIECE))):
        sizes.append(part[:, 0].copy())
        marks.append(marks_of(part, asked_at))
    return np.concatenate(sizes), np.concatenate(marks)


def marks_of(stamps: np.ndarray, asked_at: int) -> np.ndarray:
    """The marks (M,) int64 of files by their stamps (M, 4)."""
    found = np.zeros(len(stamps), np.uint64)
    for column in stamps[:, 1:].T.astype(np.uint64):
        found = mixed(found ^ column)
    found |= np.uint64(1)
    found[~is_settled(stamps, asked_at)[:, 0]] = 0
    return found.view(np.int64)


def are_texts(block: np.ndarray, ends: np.ndarray) -> bool:
    """True if arrays are the bytes of texts (B,), one behind the other, and the places where these end (N + 1,)."""
    if (block.dtype.str, block.ndim, ends.dtype.str, ends.ndim) != ("|u1", 1, "<i8", 1) or not len(ends):
        return False
    return ends[0] == 0 and ends[-1] == len(block) and bool((ends[1:] >= ends[:-1]).all())


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
