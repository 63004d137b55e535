"""Indexes of images that are kept from start to start, held against every image where that is asked for, not a few.

It reads as much of each image as its digest covers, and finds what a sample misses: content that changed behind the
same size and times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

SHOWN = 3
"""Names that a sentence lists, at most."""
_FOUND: ContextVar[list[str] | None] = ContextVar("found", default=None)


@contextmanager
def verifying() -> Iterator[list[str]]:
    """Context manager: every image is read, and what is not as it was kept is told, a sentence for each kind."""
    found: list[str] = []
    token = _FOUND.set(found)
    try:
        yield found
    finally:
        _FOUND.reset(token)


def is_verifying() -> bool:
    """True where every image is to be read."""
    return _FOUND.get() is not None


def to_compare(usual: int, count: int) -> int:
    """The number of images, of so many, that an index is held against."""
    return count if is_verifying() else usual


def tell(names: Sequence[str], what: str) -> None:
    """Tell what is the matter with some images or files, where they are verified and there are any."""
    found = _FOUND.get()
    if found is not None and len(names):
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        found.append(f"{', '.join(map(repr, names[:SHOWN]))}{more} {what}.")


NEW = "came since the index was made: read now"
GONE = "went since the index was made"
TOUCHED = "changed in size, times or inode since the index was made: read again"
OTHER = (
    "not what the index says, behind the same size and times, as after a fault of a disk or by a program that sets "
    "times back: the index is made anew, and what began with the old content does not go on with this one"
)
UNKNOWN = "not known from an earlier start (an index is kept from 1,000 images, or a MiB of a shard, on): read now"
