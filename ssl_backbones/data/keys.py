"""Names for a million images that take little room, cross to a worker quickly, and add up to a fingerprint."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import final, overload

import numpy as np

from ssl_backbones.data.shortage import require_resources

AT_ONCE = 2**16
"""Paths that are made of their bytes, or of which bytes are made, at a time."""


class PathKeys(Sequence[str]):
    """Paths in one block of bytes: a million strings would be copied into every forked worker as they are counted."""

    block: np.ndarray
    """(B,) uint8: the paths, one behind the other."""
    ends: np.ndarray
    """(N + 1,) int64: the place where each ends, from 0 on."""

    def __init__(self, paths: Iterable[str]) -> None:
        encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
        self.block = np.frombuffer(b"".join(encoded), np.uint8)
        self.ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    @classmethod
    def of(cls, block: np.ndarray, ends: np.ndarray) -> PathKeys:
        """Paths out of their bytes, one behind the other (B,), and the place where each ends, from 0 on (N + 1,)."""
        keys = cls.__new__(cls)
        keys.block, keys.ends = block, ends
        return keys

    @classmethod
    def packed(cls, names: Sequence[str], prefix: str) -> tuple[np.ndarray, np.ndarray]:
        """The bytes of the paths that begin alike, one behind the other (b,), and the length of each (n,)."""
        text = f"{prefix}{f'{chr(0)}{prefix}'.join(names)}\0".encode("utf-8", "surrogateescape")
        content = np.frombuffer(text, np.uint8)
        return content[content != 0], np.diff(np.flatnonzero(content == 0), prepend=-1) - 1

    def at(self, rows: np.ndarray) -> PathKeys:
        """The paths at some rows (n,), in their order, looked up some at a time."""
        lengths = np.diff(self.ends)[rows]
        ends = np.cumsum(np.append(0, lengths), dtype=np.int64)
        block = np.empty(ends[-1], np.uint8)
        for start in range(0, len(rows), AT_ONCE):
            here = slice(start, start + AT_ONCE)
            first, last = ends[start], ends[min(start + AT_ONCE, len(rows))]
            moved = np.repeat(self.ends[rows[here]] - ends[:-1][here], lengths[here])
            block[first:last] = self.block[np.arange(first, last) + moved]
        return PathKeys.of(block, ends)

    def equals(self, other: PathKeys) -> bool:
        """True if all paths are the same."""
        pairs = ((self.ends, other.ends), (self.block, other.block))
        return all(one is another or np.array_equal(one, another) for one, another in pairs)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), AT_ONCE):
            yield from self[start : start + AT_ONCE]

    def terminated(self) -> Iterator[bytes]:
        """The bytes of all paths, each with a zero behind it, some paths at a time."""
        for start in range(0, len(self), AT_ONCE):
            ends = self.ends[start : start + AT_ONCE + 1]
            content = np.zeros(int(ends[-1] - ends[0]) + len(ends) - 1, np.uint8)
            is_path = np.ones(len(content), bool)
            is_path[ends[1:] - ends[0] + np.arange(len(ends) - 1)] = False
            content[is_path] = self.block[ends[0] : ends[-1]]
            yield content.tobytes()

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        return self.block[self.ends[at] : self.ends[at + 1]].tobytes().decode("utf-8", "surrogateescape")


@final
class GrowingKeys:
    """Paths that are added some at a time, in hardly more memory than they have in the end."""

    def __init__(self) -> None:
        self.block, self.lengths = bytearray(), array("q", [0])

    def add(self, block: np.ndarray, lengths: np.ndarray) -> None:
        """Add paths by their bytes, one behind the other (b,), and the length of each (n,)."""
        self.block += block.data
        self.lengths.frombytes(lengths.astype(np.int64).tobytes())

    def finished(self) -> PathKeys:
        """All paths; nothing is added any more."""
        ends = np.frombuffer(self.lengths, np.int64)
        return PathKeys.of(np.frombuffer(self.block, np.uint8), np.cumsum(ends, out=ends))


class RowKeys(Sequence[str]):
    """`name:row` for the rows of several tables, one behind the other."""

    def __init__(self, names: Sequence[str], counts: Sequence[int]) -> None:
        self.names = tuple(names)
        self.ends = np.cumsum([0, *counts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.ends[-1])

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        table = int(np.searchsorted(self.ends, at, side="right")) - 1
        return f"{self.names[table]}:{at - self.ends[table]}"


def names_of(files: Sequence[PurePath]) -> list[str]:
    """The paths of files, given from the root on, below the folder they share."""
    shared = os.path.commonpath([file.parent for file in files])
    return [file.relative_to(shared).as_posix() for file in files]


def fingerprint_of(keys: Sequence[str], labels: np.ndarray | None, digests: np.ndarray) -> str:
    """A sha256 over keys, labels (N,) or None, and the digests of the images (N, D)."""
    digest = begun("images", keys, labels)
    digest.update(np.ascontiguousarray(digests).data)
    return digest.hexdigest()


def fingerprint_by_sizes_of(keys: Sequence[str], labels: np.ndarray | None, sizes: np.ndarray) -> str:
    """The fingerprint that 0.1.0.dev0 wrote: over keys, labels (N,) or None, and sizes in bytes (N,)."""
    digest = begun("photos", keys, labels)
    digest.update(np.ascontiguousarray(sizes, "<i8").data)
    return digest.hexdigest()


def begun(word: str, keys: Sequence[str], labels: np.ndarray | None) -> hashlib._Hash:
    """A sha256 that has taken in the number of images, their keys and labels (N,) or None."""
    digest = hashlib.sha256(f"{len(keys)} {word}".encode())
    pieces = keys.terminated() if isinstance(keys, PathKeys) else (as_bytes(key) + b"\0" for key in keys)
    for piece in pieces:
        digest.update(piece)
    digest.update(b"unlabelled" if labels is None else np.ascontiguousarray(labels, "<i8").data)
    return digest


def as_bytes(key: str) -> bytes:
    """A key as the file system has it."""
    return key.encode("utf-8", "surrogateescape")


def size_of(path: Path) -> int:
    """Size in bytes, or -1 of a file that cannot be asked."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def bytes_of(path: Path) -> bytes | None:
    """The content of a file; None of one that cannot be read. ShortageError where the process lacks what it takes."""
    try:
        return path.read_bytes()
    except OSError as error:
        require_resources(error, path)
        return None


def as_unicode(keys: Sequence[str]) -> list[str]:
    """Keys as Unicode: bytes of a file name that are none are written out."""
    return [key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for key in keys]
