"""The folder a run lives in: whose it is, what lies where, and files that are never half written."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ssl_backbones.checks import brief, few
from ssl_backbones.credentials import change_texts
from ssl_backbones.files import (
    PRIVATE,
    check_writable,
    clear_leftovers,
    content_of,
    object_in,
    read_object,
    write_json,
)
from ssl_backbones.locks import Lock, LockedError
from ssl_backbones.refusal import Refusal, reason
from ssl_backbones.registry.names import LEFT
from ssl_backbones.runs.results import PRETRAINING

logger = logging.getLogger(__name__)

OURS = (".lock", ".probe", PRIVATE)
"""The beginnings of the names of what a run that was killed while it claimed the folder may leave."""


NETWORK = ("model.safetensors", "config.json")
"""Files of each network that a run leaves."""


class RunFolderError(Refusal, RuntimeError):
    """A folder that this run may not write to, and why."""


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run's parts. The process that writes them gets one from `claim`; others may make their own."""

    path: Path
    resumed: bool = False
    """True if the same recipe has been here before."""
    lock: Lock | None = None
    """Held by the process that claimed the folder."""

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.json"

    @property
    def results(self) -> Path:
        """Written last: a run that has it is finished."""
        return self.path / "results.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def has_trained(self) -> bool:
        """True if a run has left something here that another recipe would spoil: a checkpoint of trained weights."""
        steps = (path.name.removeprefix("step-") for path in self.saved)
        return self.results.exists() or any(step.strip("0") for step in steps)

    @property
    def saved(self) -> list[Path]:
        """All checkpoints, those of its parts, such as each learning rate of a search, included."""
        return [*self.checkpoints.glob("step-*"), *self.path.glob("*/checkpoints/step-*")]

    @property
    def backbone(self) -> Path:
        return self.path / "backbone"

    @property
    def classifier(self) -> Path:
        return self.path / "classifier"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def speed(self) -> Path:
        return self.path / "speed.jsonl"

    def release(self) -> None:
        """Let another process claim the folder; the end of the process does so too, however it ends."""
        if self.lock is not None:
            self.lock.release()
            object.__setattr__(self, "lock", None)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def claim(
    path: str | Path,
    recipe: Mapping[str, Any],
    *,
    may_differ: Collection[str] = (),
    complete: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> RunFolder:
    """The folder, owned by this process until it ends, with `recipe` (plain JSON) written in it; or RunFolderError.

    An earlier run of the same recipe goes on. Fields in `may_differ` (dotted names, or the prefix of some) may have
    changed; `complete` gives an earlier recipe the fields that it was written without. A run that failed before it had
    trained anything gives its folder up to another recipe. That of a finished one stays as it is, unless its results
    were cut short or a network of it is gone: then it counts as unfinished, for the same command to make them anew.
    """
    path = Path(path)
    recipe = as_recorded(recipe)
    check_ours(path)
    check_no_links(path)
    probe(path)
    held = take_lock(path)
    try:
        for part in ("", *LEFT):
            clear_leftovers(path / part)
        folder = RunFolder(path, resumed=(path / "recipe.json").exists(), lock=held)
        changed = changed_fields(folder, recipe, may_differ, complete) if folder.resumed else ""
        if changed:
            folder = emptied(folder, changed)
        reopen_if_harmed(folder)
        if not folder.results.exists():
            write_json(folder.recipe, recipe)
    except BaseException:
        held.release()
        raise
    return folder


def check_free(
    path: Path,
    recipe: Mapping[str, Any],
    *,
    may_differ: Collection[str] = (),
    complete: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    instead: str = "",
) -> None:
    """Raise RunFolderError for a folder of something else or of another recipe's run, which `instead` ends.

    Nothing is written.
    """
    check_ours(path)
    check_no_links(path)
    folder = RunFolder(path)
    if folder.recipe.exists() and folder.has_trained:
        refuse_other(folder, changed_fields(folder, as_recorded(recipe), may_differ, complete), instead)


def as_recorded(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as recipe.json has it."""
    recorded: dict[str, Any] = change_texts(json.loads(json.dumps(recipe, allow_nan=False)))
    return recorded


def refuse_other(folder: RunFolder, changed: str, instead: str = "") -> None:
    """Raise RunFolderError for the run of another recipe; `instead` names one more way out."""
    if changed:
        raise RunFolderError(
            f"{folder.path} holds the run of another recipe ({changed}); "
            f"choose another folder with --out, or give the fields their old values to resume{instead}"
        )


def probe(path: Path) -> None:
    """Make the folder and write to it once, so that a run fails before its first step and not at its first save."""
    try:
        check_writable(path)
    except OSError as error:
        raise RunFolderError(
            f"{path} cannot be written to ({reason(error)}); give the run a folder that can, with --out"
        ) from error


def check_ours(path: Path) -> None:
    """Refuse a folder that holds something else than a run, before anything is written to it."""
    if not path.is_dir() or (path / "recipe.json").exists():
        return
    others = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith(OURS))
    if others:
        raise RunFolderError(
            f"{path} is not a run's folder: it holds {few(others)} but no recipe.json; "
            "choose a new or an empty folder with --out"
        )


def check_no_links(path: Path) -> None:
    """Refuse a folder out of which a run would write, or delete, through a link."""
    for folder in (*LEFT, "checkpoints"):
        if (path / folder).is_symlink():
            raise RunFolderError(
                f"{path / folder} is a link, and nothing is written through links: put the folder that it names in its "
                "place, or choose another folder with --out"
            )


def reopen_if_harmed(folder: RunFolder) -> None:
    """Delete the results of a finished run that lost a part which its last checkpoint, or measuring again, gives back.

    RunFolderError where only training anew would.
    """
    lost, trained = lost_part(folder)
    if not lost:
        return
    if trained and not folder.saved:
        raise RunFolderError(
            f"{folder.path} holds a finished run, but {lost}, and no checkpoint to make it anew from: restore it, or "
            "choose another folder with --out to train again"
        )
    logger.warning("%s holds a finished run, but %s: made anew", folder.path, lost)
    folder.results.unlink()


def lost_part(folder: RunFolder) -> tuple[str, bool]:
    """The part that a finished run has lost, in words, empty for one that is whole; and True if it left a network."""
    if not folder.results.exists():
        return "", False
    try:
        results = object_in(content_of(folder.results))
    except (OSError, ValueError) as error:
        return f"its {folder.results.name} cannot be read ({reason(error)})", folder.backbone.exists()
    left = [name for name in LEFT if isinstance(told := results.get(name), dict) and told.get("folder")]
    left += ["backbone"] if results.get("protocol") == PRETRAINING else []
    gone = [f"{name}/{file}" for name in left for file in NETWORK if not (folder.path / name / file).is_file()]
    return (f"its {gone[0]} is gone" if gone else ""), bool(left)


def changed_fields(
    folder: RunFolder,
    recipe: Mapping[str, Any],
    may_differ: Collection[str],
    complete: Callable[[dict[str, Any]], dict[str, Any]],
) -> str:
    """The fields in which a recipe differs from the folder's own, in words; empty where it is the same."""
    there = complete(read_object(folder.recipe, "restore it, or choose another folder with --out", RunFolderError))
    changed = [
        f"{name[:80]} is {brief(json.dumps(old))} there and {brief(json.dumps(new))} here"
        for name, (old, new) in differences(there, recipe).items()
        if not any(name == free or name.startswith(f"{free}.") for free in may_differ)
    ]
    return few(changed, 8, "; ")


def emptied(folder: RunFolder, changed: str) -> RunFolder:
    """The folder of a run that trained nothing, emptied for one of another recipe; refuses to go on with any other."""
    if folder.has_trained:
        refuse_other(folder, changed)
    logger.warning("the run in %s ended before it had trained anything: begun anew (%s)", folder.path, changed)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    return RunFolder(folder.path, lock=folder.lock)


def differences(there: Any, here: Any, name: str = "") -> dict[str, tuple[Any, Any]]:
    """The leaves at which two JSON values differ, by dotted name: the value there and the value here."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for key in sorted({*there, *here}):
            found |= differences(there.get(key), here.get(key), f"{name}.{key}" if name else key)
        return found
    same = there == here and isinstance(there, bool) == isinstance(here, bool)
    return {} if same else {name: (there, here)}


def take_lock(path: Path) -> Lock:
    """The folder's lock, taken; RunFolderError where another process has it."""
    try:
        return Lock(path / ".lock")
    except LockedError as error:
        raise RunFolderError(
            f"{path} is in use by {error}; wait for it or stop it, or choose another folder with --out (if it is "
            "surely gone, delete .lock)"
        ) from error
    except OSError as error:
        raise RunFolderError(
            f"{path / '.lock'} cannot be opened ({reason(error)}): delete it if no run is in this folder, or "
            "choose another with --out"
        ) from error
