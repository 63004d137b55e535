"""The narrator of a command: nothing that takes long is silent, whoever does it.

Whoever begins something says so to `during`. While a command runs, a thread looks once a second, and where nothing was
told for ten seconds it tells what is being done, and since when.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SILENCE = 10.0
"""Seconds without a line after which one is told."""
LOOK = 1.0
"""Seconds between two looks."""

Doing = str | Callable[[], str]
"""Words for what is being done, or a function that has them at the moment."""


def as_time(seconds: float) -> str:
    """A duration as a person says it: 42 s, 7 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Narrator:
    """The things being done, innermost last, and the time at which a person last heard of any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.tell: Callable[[str], None] = self.print
        self.doing: list[tuple[Doing, float]] = []
        self.heard_at = clock()
        self.lock = threading.Lock()
        if hasattr(os, "register_at_fork"):  # no worker begins with a line half told
            release = self.lock.release
            os.register_at_fork(before=self.lock.acquire, after_in_parent=release, after_in_child=release)

    def print(self, line: str) -> None:
        """Print a line at once."""
        print(line, flush=True)

    def heard(self) -> None:
        """Note that something was told just now."""
        self.heard_at = self.clock()

    @contextmanager
    def during(self, what: Doing) -> Iterator[None]:
        """Context manager: this is being done."""
        begun = (what, self.clock())
        self.doing.append(begun)
        try:
            yield
        finally:  # a generator may leave it late
            self.doing = [other for other in self.doing if other is not begun]

    def look(self) -> None:
        """Tell what is being done if nothing was told for too long."""
        with self.lock:
            if not self.doing or self.clock() - self.heard_at < SILENCE:
                return
            what, since = self.doing[-1]
            self.tell(f"{what if isinstance(what, str) else what()} ({as_time(self.clock() - since)} so far)")
            self.heard()

    @contextmanager
    def watching(self, what: Doing) -> Iterator[None]:
        """Context manager: this is being done, and a thread looks whether it is told of; inside another, no second."""
        if self.doing:
            with self.during(what):
                yield
            return
        # Python warns of every fork beside a thread; this one holds no lock then, and torch's have always been there.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(LOOK):
                self.look()

        thread = threading.Thread(target=watch, name="narrator", daemon=True)
        self.heard()
        with self.during(what):
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()


NARRATOR = Narrator()
"""The narrator of this process."""
