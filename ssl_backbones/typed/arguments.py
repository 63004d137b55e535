"""Command lines that argparse reads, with one sentence for what it refuses."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """argparse, with one sentence for what it refuses."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; --help lists the options", file=sys.stderr)
        raise SystemExit(2)


def at_least(smallest: int) -> Callable[[str], int]:
    """What reads a whole number from `smallest` on."""

    def read(word: str) -> int:
        if not word.lstrip("-").isdecimal() or int(word) < smallest:
            raise argparse.ArgumentTypeError(f"{word!r} is no whole number from {smallest} on")
        return int(word)

    return read
