"""Output files of a command: free before it begins, and written together or by the same command again.

A command that writes several files notes beside them which it wrote until all are there. One that is killed in between
leaves the note, by which the next knows those files, while nobody has changed or replaced them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ssl_backbones.files import PRIVATE, announced, kept_with_all, read_object, write_json
from ssl_backbones.refusal import Refusal

NOTE = f"{PRIVATE}together-"
"""The beginning of the names of notes."""


class OutputError(Refusal, ValueError):
    """A file to write that exists, or a place where none can be written."""


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse to write a file that exists, unless it may be replaced, and a path that cannot hold one: OutputError."""
    if path.is_dir() or not path.parent.is_dir():
        why = "is a folder" if path.is_dir() else f"has no folder {str(path.parent)!r} to lie in"
        raise OutputError(f"{str(path)!r} {why}: name a file in a folder that exists with --out")
    if not overwrite and not is_free(path):
        raise OutputError(f"{str(path)!r} exists: name another file with --out, or replace it with --overwrite")


def check_results_folder(folder: Path, names: Iterable[str], overwrite: bool) -> None:
    """Refuse a folder that holds results, or a file of one of these names, unless they may be replaced: OutputError."""
    way_out = "name another folder with --out, or pass --overwrite"
    if not overwrite and (folder / "results.json").exists():
        raise OutputError(f"{folder} holds results: {way_out}")
    if taken := next((name for name in names if (folder / name).exists() and not overwrite), None):
        raise OutputError(f"{folder / taken} exists: {way_out}")


def is_free(path: Path) -> bool:
    """True if there is no such file, or the very one that a killed command left, of several that belong together."""
    return not path.exists() or identity(path.lstat()) in _left_by_the_killed(path)


@contextmanager
def together(paths: Iterable[Path]) -> Iterator[None]:
    """Files of one folder or several that the block writes: all are there after it, or none that is new.

    Where the process is killed in the block, what it had written may be replaced by the same command.
    """
    paths = list(paths)
    known = hashlib.sha256(os.fsencode("/".join(sorted(path.name for path in paths)))).hexdigest()[:16]
    notes = {path: path.parent / f"{NOTE}{known}" for path in paths}
    written = {path: _left_by_the_killed(path) for path in paths}

    def note(path: Path, state: os.stat_result) -> None:
        if path in notes:
            written[path].append(identity(state))
            beside = {other.name: each for other, each in written.items() if notes[other] == notes[path]}
            write_json(notes[path], {"written": beside})

    try:
        with kept_with_all(paths), announced(note):
            yield
    finally:
        for left in set(notes.values()):
            with suppress(OSError):
                left.unlink()


def identity(state: os.stat_result) -> list[int]:
    """The numbers that tell a file from any that takes its place, and from itself once it is written to."""
    return [state.st_ino, state.st_size, state.st_mtime_ns]


def _left_by_the_killed(path: Path) -> list[Any]:
    """The identities of files that commands wrote to this place before they were killed, of several not all there."""
    found: list[Any] = []
    for note in path.parent.glob(f"{NOTE}*"):
        with suppress(ValueError):
            written = read_object(note, "delete it").get("written")
            each = written.get(path.name) if isinstance(written, dict) else None
            found.extend(each if isinstance(each, list) else [])
    return found
