"""Indexes of images that are kept from start to start, held against every image where that is asked for, not a few.

It reads as much of each image as its digest covers, or all of it where a digest of the whole is kept, and finds what a
sample misses: content that changed behind the same size and times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np

from ssl_backbones.checks import few
from ssl_backbones.data.digests import spread
from ssl_backbones.data.threads import THREADS, of_each

_FOUND: ContextVar[list[str] | None] = ContextVar("found", default=None)


class NotKeptError(LookupError):
    """Nothing is kept that could be verified."""


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


def agree(digests: np.ndarray, ask: Callable[[int], bytes], usual: int, what: str, threads: int = THREADS) -> bool:
    """True if digests (N, D) are those that images are asked for now: all where they are verified, else so many.

    Progress is told, as `what`, where all are asked by so many threads, of which none asks any more afterwards.
    """
    if not is_verifying():
        return all(ask(row) == digests[row].tobytes() for row in spread(len(digests), usual))
    with closing(of_each(range(len(digests)), ask, what, threads=threads)) as found:
        return all(one == kept.tobytes() for one, kept in zip(found, digests, strict=True))


def require_kept(place: Path | None) -> None:
    """Raise NotKeptError where images are verified and nothing is kept at a place, so that none is read for it."""
    if is_verifying() and (place is None or not place.exists()):
        raise NotKeptError


def tell(names: Sequence[str], what: str) -> None:
    """Tell what is the matter with some images or files, where they are verified and there are any."""
    found = _FOUND.get()
    if found is not None and len(names):
        sentence = f"{few(names, spelled=repr)} {what}."
        found += [] if sentence in found else [sentence]


NEW = "added since the index was made: read now"
GONE = "removed since the index was made"
TOUCHED = "changed in size, times or inode since the index was made: read again"
YOUNG = "changed just before the index was made, or could not be read then: read again"
LOST = "cannot be read any more"
OTHER = (
    "changed in content although size and times did not, as by a failing disk or a program that resets times: the "
    "index is made again, and runs begun with the old content are not resumed with this one"
)
UNKNOWN = "not known from an earlier start (an index is kept from 1,000 images, or a MiB of a shard, on): read now"
