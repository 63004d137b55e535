"""Files of many images, on a disk of this machine or at an address: looked into by range, as headers and ends are."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePath
from typing import final

from ssl_backbones.data.addresses import PIECE, Address, fetched
from ssl_backbones.data.descriptors import open_to_read, read_at
from ssl_backbones.data.digests import Read, stamp_of
from ssl_backbones.data.fetching import Fetching

File = Path | Address
LEAST = 12 * 1024
"""Bytes that are asked for at a jump: the end of an image, the header of the next and its start."""
NEAR = 16 * 1024
"""Bytes that are read over rather than left out."""


def rooted(file: File) -> PurePath:
    """The absolute place of a file, of which the keys of its images are made."""
    return file.path if isinstance(file, Address) else file.absolute()


def known_as(file: File) -> str:
    """The name under which something of a file is kept: of an address without what opens it."""
    return file.known_as if isinstance(file, Address) else str(file.absolute())


def stamp(file: File) -> tuple[int, int, int, int]:
    """Four numbers of which another content has others, as `stamp_of` has them."""
    return (file.size, 0, 0, file.version) if isinstance(file, Address) else stamp_of(str(file))


def is_versioned(file: File) -> bool:
    """True where a stamp tells one content from another for certain, so that no image needs to be compared."""
    return isinstance(file, Address) and file.version != 0


@contextmanager
def opened(file: File) -> Iterator[Read]:
    """Context manager: the bytes of a file, open to be read."""
    if isinstance(file, Address):
        yield Skipping(file) if file.by_range else partial(Fetching([file]).read, 0)
        return
    descriptor = open_to_read(file)
    try:
        yield lambda offset, count: read_at(descriptor, count, offset)
    finally:
        os.close(descriptor)


@contextmanager
def as_file(file: File) -> Iterator[Path | AsFile]:
    """Context manager: a file as libraries take it: by its path, or as one that they can seek and read in."""
    if isinstance(file, Path):
        yield file
        return
    with opened(file) as read:
        yield AsFile(read, file.size)


def folders_of(files: Sequence[File]) -> dict[Path, None]:
    """The folders of those files that lie on a disk, each once."""
    return dict.fromkeys(file.parent for file in files if isinstance(file, Path))


@final
class Skipping:
    """The bytes of a file at an address, read where they are wanted: more at a time in sequence."""

    def __init__(self, file: Address) -> None:
        self.file, self.start, self.held, self.ahead = file, 0, b"", LEAST

    def __call__(self, offset: int, count: int) -> bytes:
        """Bytes from an offset on, as many as are asked for or as there are."""
        count = max(0, min(count, self.file.size - offset))
        end = self.start + len(self.held)
        if not self.start <= offset <= offset + count <= end:
            in_sequence = bool(self.held) and -NEAR <= offset - end <= NEAR
            self.ahead = min(2 * self.ahead, PIECE) if in_sequence else LEAST
            self.held, self.start = fetched(self.file, offset, max(count, self.ahead)), offset
        return self.held[offset - self.start :][:count]


@final
class AsFile(io.RawIOBase):
    """A file of so many bytes, read by a function, that libraries can seek and read in."""

    def __init__(self, read: Read, size: int) -> None:
        self.ask, self.size, self.at = read, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence])
        return self.at

    def read(self, size: int | None = -1) -> bytes:
        left = self.size - self.at
        count = left if size is None or size < 0 else min(size, left)
        found = bytes(self.ask(self.at, count)) if count > 0 else b""
        self.at += len(found)
        return found
