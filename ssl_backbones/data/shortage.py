"""Lack of open files or memory in a process, told apart from images that cannot be read."""

from __future__ import annotations

import errno

from ssl_backbones.refusal import Refusal

SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors of open files and memory that the system gives no more of."""


class ShortageError(Refusal, RuntimeError):
    """A file that cannot be read for want of open files or memory; the message says what to do."""


def require_resources(error: Exception, name: object) -> None:
    """Raise ShortageError where a file could not be read for want of open files or memory, whatever is in it."""
    if isinstance(error, OSError) and error.errno in SHORTAGES:
        raise ShortageError(
            f"{str(name)!r} cannot be opened ({error.strerror}), which is no fault of its: let the process have more "
            "(ulimit -n), or read with fewer --workers"
        ) from error
