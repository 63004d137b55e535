"""Digests of images as they are encoded: they tell images apart whatever these are called, wherever they lie.

A digest covers the size and, of a format that packs its pixels, the first, the middle and the last 4 KiB: another
picture has another size or other bytes there. Small files are read whole, and so is every format whose size says
nothing of its content, as BMP, TIFF and PPM. Files and rows of tables are digested by
this one rule. A whole digest covers every byte of any format.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Sequence

import numpy as np

from ssl_backbones.data.descriptors import open_to_read, read_at
from ssl_backbones.data.shortage import require_resources

WIDTH = 16
"""Bytes of a digest."""
BLOCK = 4096
WHOLE = 4 * BLOCK
"""Bytes up to which an image is read whole."""
PIECE = 2**20
PACKED = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP|.{4}ftyp", re.DOTALL)
"""First bytes of formats that pack pixels. An unpacked PNG ends in a checksum of all of them."""

Read = Callable[[int, int], bytes | memoryview]
"""Bytes of an image from an offset on, as many as are asked for or as there are."""

MISSING = bytes(WIDTH)
"""The digest of an image that is not there."""


def digest_of(size: int, read: Read, whole: bool = False) -> bytes:
    """The digest of an image of `size` bytes; over every one of them if it is to be `whole`."""
    start = read(0, min(size, BLOCK))
    found = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=WIDTH)
    found.update(start)
    if size > WHOLE and not whole and PACKED.match(start):
        found.update(read((size - BLOCK) // 2, BLOCK))
        found.update(read(size - BLOCK, BLOCK))
        return found.digest()
    done = len(start)
    while done < size and len(piece := read(done, min(PIECE, size - done))):
        found.update(piece)
        done += len(piece)
    return found.digest()


EMPTY = digest_of(0, lambda offset, count: b"")
"""The digest of an image of no bytes."""


def digest_of_bytes(content: bytes | memoryview | None, whole: bool = False) -> bytes:
    """The digest of an image that is in memory; MISSING for None."""
    if content is None:
        return MISSING
    view = memoryview(content)
    return digest_of(len(view), lambda offset, count: view[offset : offset + count], whole)


def digest_of_file(path: str, whole: bool = False) -> bytes:
    """The digest of a regular file; MISSING for one that cannot be read. ShortageError for want of open files."""
    try:
        descriptor = open_to_read(path)
    except (OSError, ValueError) as error:
        require_resources(error, path)
        return MISSING
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            return MISSING
        return digest_of(state.st_size, lambda offset, count: read_at(descriptor, count, offset), whole)
    except OSError:
        return MISSING
    finally:
        os.close(descriptor)


def stamp_of(path: str) -> tuple[int, int, int, int]:
    """Size, times of the last change of content and of state in ns, and inode; a size of -1 for a missing file."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return -1, 0, 0, 0
    inode = state.st_ino & (2**63 - 1)
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, inode


def spread(count: int, most: int) -> list[int]:
    """Some of the numbers below `count`, evenly spread."""
    return sorted({int(at) for at in np.linspace(0, count - 1, min(most, count))})


def as_rows(digests: Sequence[bytes]) -> np.ndarray:
    """Digests as an array (N, WIDTH) of bytes."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, WIDTH)


def are_lost(sizes: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """True (N,) for files that are there, by their sizes (N,), and could not be read for their digests (N, WIDTH)."""
    lost: np.ndarray = (sizes >= 0) & ~digests.any(axis=1)
    return lost


def as_items(digests: np.ndarray) -> np.ndarray:
    """Digests (N, WIDTH) as N items that can be compared, sorted and looked for."""
    return np.ascontiguousarray(digests).view(f"V{WIDTH}").reshape(-1)
