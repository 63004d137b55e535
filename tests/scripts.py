"""The scripts of training/ as tests call them: in this process, with the words of a command line."""

from __future__ import annotations

from collections.abc import Sequence

from ssl_backbones.commands import run


def script(name: str, words: Sequence[str]) -> None:
    """Do what training/NAME.py does; SystemExit with its exit code, unless that is 0."""
    if code := run(name.replace("_", "-"), list(words), f"{name}.py"):
        raise SystemExit(code)
