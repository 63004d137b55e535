"""Work on all images that is told of while it lasts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ssl_backbones.distributed import rank, say
from ssl_backbones.runs.log import Bar

THREADS = 4
"""Pillow decodes without holding Python's lock."""
EVERY = 10.0
"""Seconds between two lines, where no bar is shown."""

T = TypeVar("T")


def looked_at(look: Callable[[int], T], count: int, doing: str) -> Iterator[T]:
    """The findings of `look` on the indices 0, 1, ..., in this order, by several threads; told of as below."""
    with ThreadPoolExecutor(THREADS) as pool:
        yield from counted(pool.map(look, range(count)), count, doing)


def counted(items: Iterable[T], count: int, doing: str) -> Iterator[T]:
    """The items, counted by the first process on a bar where somebody watches, or in a line every ten seconds."""
    watched, said = sys.stderr.isatty(), time.monotonic()
    bar = Bar(items, total=count, desc=doing, disable=not watched or rank() > 0, leave=False)
    for done, item in enumerate(bar, start=1):
        yield item
        if not watched and time.monotonic() - said > EVERY:
            said = time.monotonic()
            say(f"{doing}: {done} of {count}")
