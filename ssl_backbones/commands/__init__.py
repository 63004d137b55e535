"""The commands of `ssl-backbones`, a file each, found by being there, and what starts them.

A command's docstring is its help. Its frozen dataclass `Options` has a field for each option, and `run(options)` does
the work; it returns an exit code, or None for 0. Where its first words choose the dataclass, it has
`parse(words, program)` in place of `Options`. `call` runs one from Python.
"""

from __future__ import annotations

import ast
import logging
import os
import re
import select
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import torch.distributed

from ssl_backbones.checks import brief
from ssl_backbones.credentials import without_credentials
from ssl_backbones.ends import first_to_tell, one_for_all
from ssl_backbones.files import told
from ssl_backbones.invocation import NAME
from ssl_backbones.narrator import NARRATOR
from ssl_backbones.refusal import Refusal
from ssl_backbones.typed.values import nearest
from ssl_backbones.typed.words import CommandLineError, as_words, read

__all__ = ["call"]

IN_TRAIN = {"accelerate", "cv2", "datasets", "pyarrow", "tqdm"}
"""Packages of the extra [train], as they are imported; [eval] has these and all others that a command may lack."""


NO_TEXT = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")
"""Characters that no system has in a word, unlike the bytes of a name that is not Unicode."""
LONG = re.compile(r"\S{400,}")


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
        print(f"{NAME}: {no_command(first)}", file=sys.stderr)
        return 2
    return run(command, others, f"{NAME} {command}")


def no_command(word: str) -> str:
    """The sentence on a word that names no command."""
    near = nearest(word.replace("_", "-"), modules())
    said = f"{brief(repr(word))} is no command{near}" if word else "the COMMAND is missing"
    return f"{said}; it is one of {', '.join(modules())}"


def call(command: str, *words: str, options: Mapping[str, Any] | None = None, **more: Any) -> int:
    """Run a command in this process: `call("pretrain", "resnet18_byol.own", data="images", epochs=50)`.

    `words` are those that stand without a name; keywords are options, and `options` those with dotted names
    (`{"optimizer.lr": 0.1}`). True and False switch on and off, a tuple gives several values. Return 0 if the command
    did what was asked for, 1 if it found nothing. Raises SystemExit where Ctrl-C stops a run with all saved,
    CommandLineError for words that it cannot start with, and any `ssl_backbones.refusal.Refusal`, whose text is one
    sentence, for what it refuses.
    """
    name = command.replace("_", "-")
    if name not in modules():
        raise CommandLineError(no_command(command))
    said = [*words, *as_words({**(options or {}), **more})]
    before, sys.argv = sys.argv, [NAME, name, *said]  # which results tell as the command that made them
    try:
        return narrated(name, said, f"{NAME} {name}")
    finally:
        sys.argv = before


def run(command: str, words: Sequence[str] | None = None, program: str = "") -> int:
    """Run a command; 0 if it did what was asked for, 1 if it found nothing, 2 if it refused, in one sentence.

    The words are those that started this process, and the program's name is its own, unless others are given.
    """
    program = program or Path(sys.argv[0]).name
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names of files that are no Unicode
    try:
        with one_for_all(lambda: "and the same command goes on from what is kept"):
            return narrated(command, sys.argv[1:] if words is None else words, program)
    except KeyboardInterrupt:
        print(f"{program}: interrupted; the same command goes on from what is kept", file=sys.stderr, flush=True)
        return 130
    except (Refusal, OSError) as error:
        if isinstance(error, BrokenPipeError) and hasattr(select, "poll") and nobody_reads():
            return 141
        every_process = isinstance(error, CommandLineError) and os.environ.get("RANK", "0") != "0"
        sentence = LONG.sub(cut, without_credentials(told(error) if isinstance(error, OSError) else str(error)))
        if not every_process and first_to_tell(sentence):
            print(f"{program}: {sentence}", file=sys.stderr, flush=True)
        return 2
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def nobody_reads() -> bool:
    """True where the reader of this process's output has gone, as `head` does; nothing is written to it any more."""
    looking = select.poll()
    looking.register(sys.stdout.fileno(), 0)
    if not any(found & select.POLLERR for _, found in looking.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def cut(word: re.Match[str]) -> str:
    """A word that no person wrote, as far as it tells anything."""
    return f"{word[0][:200]}... ({len(word[0]):,} letters)"


def narrated(command: str, words: Sequence[str], program: str) -> int:
    """The exit code of a command, of which the first process never hears nothing for longer than ten seconds."""
    if os.environ.get("RANK", "0") != "0":
        return started(command, words, program)
    with NARRATOR.watching(f"{program} is at work"):
        return started(command, words, program)


def started(command: str, words: Sequence[str], program: str) -> int:
    """The exit code of a command, once it has done what the words say."""
    if odd := next((word for word in words if NO_TEXT.search(word)), None):
        raise CommandLineError(f"the word {odd!r} holds a zero byte or half a letter, as no name does: write another")
    try:
        module = import_module(f"{__name__}.{modules()[command]}")
        return int(module.run(options_of(module, words, program)) or 0)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package == "ssl_backbones":
            raise
        extra = "train" if package in IN_TRAIN else "eval"
        raise MissingPackageError(f"{package} is not installed: pip install '{NAME}[{extra}]'") from error


def options_of(module: Any, words: Sequence[str], program: str) -> Any:
    """The options of a command that the words spell; CommandLineError says what is wrong."""
    if hasattr(module, "parse"):
        return module.parse(words, program)
    return read(module.Options, words, program, module.__doc__)


def modules() -> dict[str, str]:
    """The module of each command: import_ of import, mine_pairs of mine-pairs."""
    return {path.stem.rstrip("_").replace("_", "-"): path.stem for path in sources(__path__[0])}


def overview() -> str:
    """Every command with the first sentence of its help, none of them imported."""
    about = summaries(__path__[0])
    lines = [f"  {command:<12}{about[module]}" for command, module in modules().items()]
    return "\n".join([f"usage: {NAME} COMMAND ..., and {NAME} COMMAND --help for its options", "", *lines])


def summaries(folder: str) -> dict[str, str]:
    """The first line of the docstring of every module in a folder of the package, none of them imported."""
    docstrings = {path.stem: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in sources(folder)}
    return {stem: (docstring or "").partition("\n")[0] for stem, docstring in docstrings.items()}


def sources(folder: str) -> list[Path]:
    """The files of the modules in a folder of the package that do not begin with an underscore, by name."""
    return sorted(Path(folder).glob("[!_]*.py"))
