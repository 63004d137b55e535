"""The commands of `ssl-backbones`, a file each, found by being there, and what starts them.

A command's docstring is its help. Its frozen dataclass `Options` has a field for each option, and `run(options)` does
the work; it returns an exit code, or None for 0. Where its first words choose the dataclass, it has
`parse(words, program)` in place of `Options`.
"""

from __future__ import annotations

import ast
import logging
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch.distributed

from ssl_backbones.distributed import first_to_tell
from ssl_backbones.invocation import NAME
from ssl_backbones.refusal import Refusal
from ssl_backbones.typed.values import nearest
from ssl_backbones.typed.words import CommandLineError, read


class MissingPackageError(Refusal, ImportError):
    """A package that a command needs and an installation without extras lacks."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that the words name; 0 if it did what was asked for, 1 if it found nothing, 2 if it refused."""
    first, *others = (sys.argv[1:] if words is None else words) or [""]
    if first in ("-h", "--help"):
        print(overview())
        return 0
    command = first.replace("_", "-")
    if command not in modules():
        said = f"{first!r} is no command{nearest(command, modules())}" if first else "the COMMAND is missing"
        print(f"{NAME}: {said}; it is one of {', '.join(modules())}", file=sys.stderr)
        return 2
    return run(command, others, f"{NAME} {command}")


def run(command: str, words: Sequence[str] | None = None, program: str = "") -> int:
    """Run a command; 0 if it did what was asked for, 1 if it found nothing, 2 if it refused, in one sentence.

    The words are those that started this process, and the program's name is its own, unless others are given.
    """
    program = program or Path(sys.argv[0]).name
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        return started(command, sys.argv[1:] if words is None else words, program)
    except (Refusal, OSError) as error:
        every_process = isinstance(error, CommandLineError) and os.environ.get("RANK", "0") != "0"
        if not every_process and first_to_tell(str(error)):
            print(f"{program}: {error}", file=sys.stderr, flush=True)
        return 2
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def started(command: str, words: Sequence[str], program: str) -> int:
    """The exit code of a command, once it has done what the words say."""
    try:
        module = import_module(modules()[command])
    except ModuleNotFoundError as error:
        if str(error.name).startswith(__name__.partition(".")[0]):
            raise
        raise MissingPackageError(f"{error.name} is not installed: pip install '{NAME}[train]'") from error
    return int(module.run(options_of(module, words, program)) or 0)


def options_of(module: Any, words: Sequence[str], program: str) -> Any:
    """The options of a command that the words spell; CommandLineError says what is wrong."""
    if hasattr(module, "parse"):
        return module.parse(words, program)
    return read(module.Options, words, program, module.__doc__)


def modules() -> dict[str, str]:
    """The name of each command, with the module that it is: import_ is import, mine_pairs is mine-pairs."""
    stems = (found.name for found in pkgutil.iter_modules(__path__))
    return {stem.rstrip("_").replace("_", "-"): f"{__name__}.{stem}" for stem in stems}


def overview() -> str:
    """Every command with the first sentence of its help, none of them imported."""
    lines = [f"usage: {NAME} COMMAND ..., and {NAME} COMMAND --help for its options", ""]
    for command, module in modules().items():
        source = Path(__path__[0], f"{module.rpartition('.')[2]}.py").read_text(encoding="utf-8")
        lines.append(f"  {command:<12}{(ast.get_docstring(ast.parse(source)) or '').splitlines()[0]}")
    return "\n".join(lines)
