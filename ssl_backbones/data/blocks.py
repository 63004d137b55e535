"""Blocks of files at addresses, kept on a disk that all processes of a machine share.

A block is there whole or not at all: it is written under another name, and ends in a checksum of each of its pages,
against which every page is held that is read. Where nobody names a folder, blocks lie in one below the system's folder
for temporary files, which the last process that uses it clears.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import tempfile
import time
import weakref
import zlib
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from ssl_backbones.checks import check
from ssl_backbones.data.images import ImageSourceError
from ssl_backbones.files import PRIVATE, clear_leftovers
from ssl_backbones.locks import posix
from ssl_backbones.refusal import reason
from ssl_backbones.typed.values import check_types

BLOCK = 4 * 2**20
PAGE = 64 * 2**10
SUFFIX = ".block"
CLAIMS = 1024
"""Places at which processes agree on who fetches a block; two blocks meet there by chance, and wait for one another."""
USERS = "users"
SHARE = 256
"""The part of the limit after which a process looks at the folder again."""
FORGOTTEN = 3600.0
"""Seconds after which half a block is a killed process's."""


@final
@dataclass(frozen=True)
class Keeping:
    """The folder for blocks of what is read from addresses."""

    folder: str = ""
    """Folder that keeps downloaded shards for later epochs and runs; a temporary one if empty."""
    limit: float = 8.0
    """GB of shards to keep; with less than two windows of shards some are downloaded again and again."""

    def __post_init__(self) -> None:
        """Raise ValueError for a limit that leaves no room."""
        check_types(self, "blocks.")
        check(0 < self.limit < math.inf, "blocks.limit", self.limit, "above 0")


USUAL_KEEPING = Keeping()


@final
class Blocks:
    """The blocks in a folder, as one process uses them."""

    def __init__(self, keeping: Keeping, own: Container[str] = ()) -> None:
        """Make the folder; `own` are the sources of which blocks are read. ImageSourceError where it cannot be used."""
        self.own, self.temporary = own, not keeping.folder
        self.wanted: Container[str] = ()
        """Sources whose blocks are read now or soon, and make room last."""
        self.folder = Path(keeping.folder).expanduser() if keeping.folder else temporary_folder()
        self.limit = int(keeping.limit * 1e9)
        self.counted = self.limit
        """Bytes that were kept since room was last made; the first block looks."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.temporary and (self.folder.is_symlink() or self.folder.stat().st_uid != os.getuid()):
                raise PermissionError(1, "it is another user's")
            users = os.open(self.folder / USERS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self.unusable(error) from error
        if self.temporary:
            clear_if_alone(users, self.folder)
            with suppress(OSError):
                posix().flock(users, posix().LOCK_SH)
        else:
            clear_leftovers(self.folder, time.time() - FORGOTTEN)
        weakref.finalize(self, leave, users, self.folder, self.temporary, os.getpid())

    def path(self, name: str) -> Path:
        """The file of a block."""
        return self.folder / f"{name}{SUFFIX}"

    def has(self, name: str) -> bool:
        """True if a block is there."""
        return self.path(name).exists()

    def read(self, name: str, size: int, start: int, count: int) -> bytes | None:
        """Some bytes of a block of `size`; None where it is not there, or not what was written, and then deleted."""
        pages = -(-size // PAGE)
        first, last = start // PAGE, -(-(start + count) // PAGE)
        try:
            descriptor = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            whole = os.fstat(descriptor).st_size == size + 4 * pages
            content = os.pread(descriptor, min(last * PAGE, size) - first * PAGE, first * PAGE)
            sums = os.pread(descriptor, 4 * (last - first), size + 4 * first)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        if not whole or checksums(content) != sums:
            with suppress(OSError):
                self.path(name).unlink()
            return None
        return content[start - first * PAGE :][:count]

    def keep(self, name: str, content: bytes) -> None:
        """Write a block, and make room for it; ImageSourceError where the disk takes none."""
        self.make_room(len(content))
        private = self.folder / f"{PRIVATE}{secrets.token_hex(8)}"
        try:
            with open(private, "xb") as file:
                file.write(content)
                file.write(checksums(content))
            os.replace(private, self.path(name))
        except OSError as error:
            with suppress(OSError):
                private.unlink()
            raise self.unusable(error) from error

    def make_room(self, count: int) -> None:
        """Delete blocks where there are more bytes than the limit allows.

        Those of other sources go first, the oldest before others, and those that are wanted last; between them, of the
        source itself, the newest before others: an epoch comes to all of them before it comes to the same again.
        """
        self.counted += count
        if self.counted < self.limit // SHARE:
            return  # every process writes as much before it looks at what all have written
        self.counted = 0
        found = list(blocks_in(self.folder))
        excess = sum(state.st_size for _, state in found) + count + self.limit // 16 - self.limit

        def order(item: tuple[os.DirEntry[str], os.stat_result]) -> tuple[bool, bool, float]:
            source = item[0].name.partition("-")[0]
            own = source in self.own
            return source in self.wanted, own, (-1 if own else 1) * item[1].st_mtime

        for entry, state in sorted(found, key=order):
            if excess <= 0:
                break
            with suppress(OSError):
                os.unlink(entry.path)
                excess -= state.st_size

    @contextmanager
    def claim(self, name: str, wait: bool) -> Iterator[bool]:
        """Context manager: this thread alone, of all on this machine, fetches a block; False if another does it now.

        Where nothing can be locked, everybody may.
        """
        place = int(hashlib.blake2b(name.encode(), digest_size=4).hexdigest(), 16) % CLAIMS
        descriptor = os.open(self.folder / f".claim-{place:04d}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                posix().flock(descriptor, posix().LOCK_EX | (0 if wait else posix().LOCK_NB))
            except BlockingIOError:
                yield False
                return
            except OSError:
                pass
            yield True
        finally:
            with suppress(OSError):  # a process that was forked meanwhile has the same lock, until it ends
                posix().flock(descriptor, posix().LOCK_UN)
            os.close(descriptor)

    def unusable(self, error: OSError) -> ImageSourceError:
        """The error of a folder that cannot be used."""
        way_out = f"name {'a' if self.temporary else 'another'} folder with --blocks.folder"
        return ImageSourceError(
            f"what is read from addresses cannot be kept in {self.folder} ({reason(error)}): make room, or {way_out}"
        )


def temporary_folder() -> Path:
    """This user's folder among the system's for temporary files."""
    return Path(tempfile.gettempdir()) / f"ssl_backbones-{os.getuid()}"


def blocks_in(folder: Path) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    """The blocks of a folder, and their states."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX):
                with suppress(OSError):  # another process may have made room
                    yield entry, entry.stat()


def clear_if_alone(users: int, folder: Path) -> None:
    """Delete the blocks of a folder, and half ones of killed processes, if no other process uses it."""
    with suppress(OSError):
        posix().flock(users, posix().LOCK_EX | posix().LOCK_NB)
        for path in folder.iterdir():
            if path.suffix == SUFFIX or path.name.startswith(PRIVATE):
                path.unlink()


def leave(users: int, folder: Path, temporary: bool, process: int) -> None:
    """Stop using a folder; a temporary one that no other process uses is cleared. A forked process only lets go."""
    if temporary and process == os.getpid():
        clear_if_alone(users, folder)
    with suppress(OSError):
        os.close(users)


def checksums(content: bytes) -> bytes:
    """The checksum of each page, four bytes each."""
    sums: Any = [zlib.crc32(content[at : at + PAGE]) for at in range(0, len(content), PAGE)]
    return np.array(sums, "<u4").tobytes()
