"""Work on all images that is told of while it lasts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ssl_backbones.distributed import doing, rank
from ssl_backbones.runs.log import Bar

THREADS = 4
"""Pillow decodes without holding Python's lock."""

T = TypeVar("T")


def looked_at(look: Callable[[int], T], count: int, what: str) -> Iterator[T]:
    """Yield look(0), look(1), ..., computed by several threads, with progress in the log."""
    with ThreadPoolExecutor(THREADS) as pool:
        yield from counted(pool.map(look, range(count)), count, what)


def counted(items: Iterable[T], count: int, what: str) -> Iterator[T]:
    """The items, counted by the first process: on a bar where somebody watches, elsewhere where it is silent long."""
    done = 0
    watched = sys.stderr.isatty() and rank() == 0
    with doing(lambda: f"{what}: {done} of {count}"):
        for item in Bar(items, total=count, desc=what, disable=not watched, leave=False):
            yield item
            done += 1
