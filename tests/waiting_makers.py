"""Two processes that want to make the same thing at once, of which one waits for the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing import Process
from pathlib import Path

from limits import HANG


def let_both_end(makers: list[Process], one_waits: Callable[[], bool], go: Path) -> None:
    """Say go once one of them has said that it waits, and see both end well."""
    while not one_waits():
        assert all(maker.is_alive() for maker in makers)
        time.sleep(0.01)
    go.touch()
    for maker in makers:
        maker.join(HANG)
    assert [maker.exitcode for maker in makers] == [0, 0]
