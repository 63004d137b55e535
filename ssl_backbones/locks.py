"""A lock that one process holds until it lets go or ends, however it ends; forked workers do not hold it."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

from ssl_backbones.files import object_in, without_links
from ssl_backbones.refusal import Refusal

WAIT = 0.5
"""Seconds between two tries to take a lock that another process holds."""
SETTLED_AFTER = 0.2
"""Seconds after which, on a file system without locks, the last of several notes counts."""


class NoLocksError(Refusal, OSError):
    """A system that has no locks of POSIX."""


class LockedError(RuntimeError):
    """A lock that another process holds."""

    def __init__(self, owner: Mapping[str, Any]) -> None:
        """`owner` is the note that the other process left; empty where it cannot be read."""
        self.owner = owner
        super().__init__(f"process {owner.get('pid', '(unknown)')} on {owner.get('host', 'a host')}")


@final
class Lock:
    """A lock file with a note of who holds it: "pid", "host" and "since".

    The system drops the lock when the process ends, even by SIGKILL. Where a file system has no locks, as on some
    clusters, the note decides: its process may be alive, or is on another host.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock; LockedError where another process has it, OSError where the file cannot be opened."""
        self.descriptor = without_links(os.fspath(path), os.O_RDWR | os.O_CREAT)
        try:
            if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file", str(path))
            self.take()
        except BaseException:
            os.close(self.descriptor)
            raise

    def take(self) -> None:
        """Lock the open file and leave the note."""
        try:
            posix().lockf(self.descriptor, posix().LOCK_EX | posix().LOCK_NB)
        except NoLocksError:
            raise
        except OSError as error:
            owner = self.note()  # not before: a file system without locks may take its time to say so
            if error.errno in (errno.EACCES, errno.EAGAIN) or may_be_alive(owner):
                raise LockedError(owner) from error
            self.leave_note()
            time.sleep(SETTLED_AFTER)  # another may have read the same note at the same time
            if (found := self.note()).get("pid") != os.getpid() or found.get("host") != socket.gethostname():
                raise LockedError(found) from error
        else:
            self.leave_note()

    def note(self) -> dict[str, Any]:
        """The note of the process that took the lock last; empty where there is none."""
        try:
            return object_in(os.pread(self.descriptor, 4096, 0))
        except ValueError:
            return {}

    def leave_note(self) -> None:
        """Write who this process is."""
        note = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, json.dumps(note).encode(), 0)

    def release(self) -> None:
        """Let another process take it; call it once."""
        with suppress(OSError):  # a disk that fails keeps the note, which does not count without the lock
            os.ftruncate(self.descriptor, 0)
        os.close(self.descriptor)


@contextmanager
def held(path: Path, tell: Callable[[LockedError], object]) -> Iterator[None]:
    """Context manager: hold a lock, once no other process does; who has it is told once. OSError as of `Lock`."""
    told = False
    while True:
        try:
            lock = Lock(path)
            break
        except LockedError as error:
            if not told:
                tell(error)
            told = True
            time.sleep(WAIT)
    try:
        yield
    finally:
        lock.release()


def posix() -> Any:
    """The locks of POSIX, asked for where one is taken, so that models are made everywhere; NoLocksError elsewhere."""
    try:
        import fcntl
    except ImportError as error:
        raise NoLocksError(
            "this system has no locks of POSIX, which training, evaluating, caches and a teacher's kept features need: "
            "run them on Linux or macOS, or on Windows in WSL"
        ) from error
    return fcntl


def may_be_alive(owner: Mapping[str, Any]) -> bool:
    """True unless the owner of a lock has surely ended: on this host it is looked up, on any other it may run."""
    pid = owner.get("pid")
    if type(pid) is not int or pid <= 0:
        return False
    if owner.get("host") != socket.gethostname():
        return True
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
