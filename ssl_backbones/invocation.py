"""The words of a command as anybody can type them who installed the package, from a copy of the repository or not."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import PurePath

NAME = "ssl-backbones"


def repeatable(words: Sequence[str]) -> str:
    """A command line of ours as `ssl-backbones COMMAND ...`, whether that, a script or the module was started."""
    program, others = PurePath(words[0]), list(words[1:])
    if program.suffix == ".py" and program.name != "__main__.py":
        others.insert(0, program.stem.replace("_", "-"))
    return shlex.join([NAME, *others])
