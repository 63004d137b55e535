"""Many images asked about by several threads at once, whose answers come in turn."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TypeVar

from ssl_backbones.distributed import say

THREADS = 8
AT_ONCE = 256
"""Images that a thread takes at a time."""
UNDER_WAY = 4
"""Parts of images for each thread that are asked about, or whose answers wait, at most: they are memory."""
PATIENCE, BETWEEN = 3.0, 10.0
"""Seconds after which progress is told, and from then on between two sentences."""

S = TypeVar("S")
T = TypeVar("T")


def of_each(
    images: Sequence[S], ask: Callable[[S], T], what: str, at_once: int = AT_ONCE, threads: int = THREADS
) -> Generator[T, None, None]:
    """The answer for each image in turn, by several threads at once; progress is told, as `what`, when it takes long.

    An image is known by its path, or by its row. It may be a shard as well, of which a thread takes one `at_once`.
    """
    begun = told = time.monotonic()
    parts = (images[start : start + at_once] for start in range(0, len(images), at_once))
    done = 0
    with ThreadPoolExecutor(max(1, min(threads, -(-len(images) // at_once)))) as pool:
        for answers in in_turn(pool, partial(asked_of, ask), parts, UNDER_WAY * threads):
            yield from answers
            done += len(answers)
            now = time.monotonic()
            if now - begun > PATIENCE and (now - told > BETWEEN or told == begun):
                told = now
                say(f"{done} of {len(images)} {what}")


def asked_of(ask: Callable[[S], T], part: Sequence[S]) -> list[T]:
    """The answer for each image of a part."""
    return [ask(image) for image in part]


def in_turn(pool: ThreadPoolExecutor, work: Callable[[S], T], parts: Iterable[S], most: int) -> Iterator[T]:
    """The results for all parts in turn, of which so many at most are under way, or done and not yet asked for.

    What is true where the answers are asked for is so in the threads.
    """
    waiting: deque[Future[T]] = deque()
    try:
        for part in parts:
            waiting.append(pool.submit(copy_context().run, work, part))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
