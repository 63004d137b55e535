"""Open files that several threads read by place, on systems that have POSIX's calls for it and on others."""

from __future__ import annotations

import os
import threading

FLAGS = ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY")
"""Not to be handed on, no pipe to be waited for, and no line ends to be changed, where a system knows of it."""
_seeking = threading.Lock()


def open_to_read(path: str | os.PathLike[str]) -> int:
    """The descriptor of a file, whose bytes are then read by place; OSError where it cannot be opened."""
    flags = os.O_RDONLY
    for name in FLAGS:
        flags |= getattr(os, name, 0)
    return os.open(path, flags)


def read_at(descriptor: int, count: int, offset: int) -> bytes:
    """So many bytes of an open file from a place on, or as many as there are."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, offset)
    with _seeking:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, count)
