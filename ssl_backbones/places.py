"""Places of files that a command is asked for: free before it begins, and filled together or by the same command again.

A command that writes several files notes their names beside them until all are there. One that is killed in between
leaves the note, by which the next knows those files for its own and not for somebody's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssl_backbones.files import PRIVATE, kept_with_all, read_object, write_json
from ssl_backbones.refusal import Refusal

NOTE = f"{PRIVATE}together-"
"""The beginning of the names of notes."""


class PlaceError(Refusal, ValueError):
    """A file to write that exists, or has no folder to lie in."""


def check_place(path: Path, overwrite: bool) -> None:
    """Refuse to write a file that exists, unless it may be replaced, and a place that cannot hold one: PlaceError."""
    if path.is_dir() or not path.parent.is_dir():
        why = "is a folder" if path.is_dir() else f"has no folder {str(path.parent)!r} to lie in"
        raise PlaceError(f"{str(path)!r} {why}: name a file in a folder that exists with --out")
    if not overwrite and not is_free(path):
        raise PlaceError(f"{str(path)!r} exists: name another file with --out, or replace it with --overwrite")


def is_free(path: Path) -> bool:
    """True if there is no such file, or one that a killed command left, of several that belong together."""
    return not path.exists() or path.name in _left_by_the_killed(path.parent)


@contextmanager
def together(paths: Iterable[Path]) -> Iterator[None]:
    """Files of one folder or several that the block writes: all are there after it, or none that is new.

    Where the process is killed in the block, the places of what it had written are free to the same command.
    """
    paths = list(paths)
    known = hashlib.sha256("/".join(sorted(path.name for path in paths)).encode()).hexdigest()[:16]
    notes: dict[Path, list[str]] = {}
    for path in filter(is_free, paths):
        notes.setdefault(path.parent / f"{NOTE}{known}", []).append(path.name)
    try:
        with kept_with_all(paths):
            for note, names in notes.items():
                write_json(note, {"new": names})
            yield
    finally:
        for note in notes:
            with suppress(OSError):
                note.unlink()


def _left_by_the_killed(folder: Path) -> set[str]:
    """The names of files that commands began to write into a folder and did not tell to be whole."""
    found: set[str] = set()
    for note in folder.glob(f"{NOTE}*"):
        with suppress(ValueError):
            names = read_object(note, "delete it").get("new")
            found.update(name for name in names if isinstance(name, str)) if isinstance(names, list) else None
    return found
