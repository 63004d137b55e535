"""A disk that fails at the n-th call: opening, writing, syncing, renaming or making folders below one folder."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)


class Disk:
    """Counts the calls that change something below a folder, and lets one of them, or all from one on, fail."""

    def __init__(self, folder: Path, fail_at: int | None = None, number: int = errno.ENOSPC, stays: bool = True):
        self.folder, self.fail_at, self.number, self.stays = f"{folder}{os.sep}", fail_at, number, stays
        self.calls: list[str] = []
        self.names: dict[int, str] = {}

    def concerns(self, path: Any) -> bool:
        if isinstance(path, int):
            return path in self.names
        return isinstance(path, str | os.PathLike) and f"{os.path.abspath(path)}{os.sep}".startswith(self.folder)

    def call(self, what: str, path: Any) -> None:
        """Count a call; OSError if it is one that fails."""
        self.calls.append(f"{what} {path}")
        count = len(self.calls)
        if self.fail_at is not None and (count == self.fail_at or (self.stays and count > self.fail_at)):
            raise OSError(self.number, os.strerror(self.number), *([path] if isinstance(path, str) else []))


class File:
    """A file that is written to, whose every write, flush and close may fail."""

    def __init__(self, file: Any, disk: Disk, path: str) -> None:
        self.__dict__.update(file=file, disk=disk, path=path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.file)

    def write(self, content: Any) -> int:
        self.disk.call("write", 0)
        written: int = self.file.write(content)
        return written

    def truncate(self, *size: int) -> int:
        self.disk.call("truncate", 0)
        left: int = self.file.truncate(*size)
        return left

    def close(self) -> None:
        if not self.file.closed:
            self.file.close()
            self.disk.call("close", 0)


@contextmanager
def failing(disk: Disk) -> Iterator[Disk]:
    """Have the calls of this process go to that disk."""
    plain_open, os_open = builtins.open, os.open

    def opened(path: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
        if not disk.concerns(path) or not set(mode) & set("wax+"):
            return plain_open(path, mode, *given, **named)
        disk.call("open", str(path))
        return File(plain_open(path, mode, *given, **named), disk, str(path))

    def low(path: Any, flags: int, *given: Any, **named: Any) -> int:
        if disk.concerns(path) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            disk.call("os.open", str(path))
        return os_open(path, flags, *given, **named)

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def call(path: Any, *given: Any, **named: Any) -> Any:
            if isinstance(path, int) or disk.concerns(path):
                disk.call(name, path if isinstance(path, int) else str(path))
            return original(path, *given, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "replace", "rename", "mkdir", "pwrite", "ftruncate"):
            patch.setattr(os, name, counted(name))
        patch.setattr(os, "open", low)
        patch.setattr(builtins, "open", opened)
        patch.setattr(io, "open", opened)
        yield disk
