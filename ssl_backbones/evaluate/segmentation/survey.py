"""A look at all masks before any work: a run should not fail on its last image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_backbones.data import ImageSourceError, UnreadableImageError
from ssl_backbones.evaluate.detection.voc_folder import VOC_CLASSES
from ssl_backbones.evaluate.segmentation.mask_values import IGNORED
from ssl_backbones.evaluate.segmentation.masks import Scenes
from ssl_backbones.files import content_of, value_in
from ssl_backbones.runs.progress import looked_at


def survey(scenes: Scenes, what: str, complete: bool) -> np.ndarray:
    """Count the pixels of each value (256,) in all masks; raises ImageSourceError for one that cannot be read.

    An image that cannot be read is refused where the scenes have to be complete, else left to the run's own account.
    """
    counts = np.zeros(256, np.int64)

    def look(index: int) -> np.ndarray:
        return values_in(scenes, index, complete)

    for values in looked_at(look, len(scenes), f"looking at the {what} masks"):
        counts += values
    if not counts[:IGNORED].any():
        raise ImageSourceError(
            f"none of the {len(scenes)} {what} masks, such as {scenes.mask_place(0)}, holds a class: all pixels are "
            f"{IGNORED}, which means ignored"
        )
    return counts


def values_in(scenes: Scenes, index: int, complete: bool) -> np.ndarray:
    """Count the pixels of each value (256,) in one mask; raises ImageSourceError where it cannot be read."""
    try:
        mask = scenes.mask(index)
    except UnreadableImageError as error:
        raise ImageSourceError(f"{error}; mend it, or leave its image out") from error
    try:
        _ = scenes[index]
    except UnreadableImageError as error:
        if complete:
            raise ImageSourceError(f"{error}; an image to be tested on has to be mended, or left out") from error
        return np.zeros(256, np.int64)
    return np.bincount(mask.ravel(), minlength=256)


def require_known(scenes: Scenes, counts: np.ndarray, classes: int) -> None:
    """ImageSourceError that names a mask with a class that the head does not have."""
    beyond = np.flatnonzero(counts[classes:IGNORED])
    if not len(beyond):
        return
    value = classes + int(beyond[-1])
    index = next(index for index in range(len(scenes)) if (scenes.mask(index) == value).any())
    raise ImageSourceError(
        f"the mask {scenes.mask_place(index)} holds class {value}, and the head tells the {classes} classes 0 to "
        f"{classes - 1} apart: name more classes with --classes or --task.classes, or mark such pixels {IGNORED}"
    )


def class_names(spec: str, classes: str, counts: np.ndarray) -> Sequence[str]:
    """The classes' names: VOC's, those of a json file or of a table in classes.json, or else the numbers in the masks.

    `counts` (256,) are those of the masks to train on. A table is a list of names, or maps numbers to names.
    """
    if classes == "voc":
        return ("background", *VOC_CLASSES)
    path = Path(classes).expanduser() if classes.endswith(".json") else folder_of(spec) / "classes.json"
    if not path.is_file():
        if classes:
            raise ImageSourceError(f"{str(path)!r}, where the names of the classes should be, does not exist: add it")
        return numbered(counts)
    table = read_table(path)
    if is_table(table):
        return names_in(table, path)
    tables = {name: part for name, part in table.items() if is_table(part)} if isinstance(table, dict) else {}
    if classes in tables:
        return names_in(tables[classes], path)
    if classes:
        raise ImageSourceError(
            f"{str(path)!r} holds no table of classes for {classes!r}: choose one of "
            f"{', '.join(tables) or 'none'} with --classes"
        )
    return numbered(counts)


def numbered(counts: np.ndarray) -> list[str]:
    """Numbers for names, up to the highest in the masks."""
    return [str(number) for number in range(int(np.flatnonzero(counts[:IGNORED])[-1]) + 1)]


def folder_of(spec: str) -> Path:
    """The folder of the data, or the one that its file lies in."""
    path = Path(spec).expanduser()
    return path if path.is_dir() else path.parent


def read_table(path: Path) -> Any:
    """The content of a json file."""
    try:
        return value_in(content_of(path))
    except (OSError, ValueError) as error:
        raise ImageSourceError(f"{str(path)!r} cannot be read ({error}): mend it, or leave it out") from error


def is_table(part: Any) -> bool:
    """True for a list of names, and for a table from numbers to names."""
    if isinstance(part, dict):
        return bool(part) and all(key.isdecimal() and isinstance(name, str) for key, name in part.items())
    return isinstance(part, list) and bool(part) and all(isinstance(name, str) for name in part)


def names_in(table: Any, path: Path) -> list[str]:
    """The names of the classes 0 to C - 1; ImageSourceError where one is missing, or named twice."""
    named = {int(key): name for key, name in table.items()} if isinstance(table, dict) else dict(enumerate(table))
    named.pop(IGNORED, None)
    names = [named.get(number, "") for number in range(max(named, default=-1) + 1)]
    if not names or len(names) > IGNORED or "" in names or len(set(names)) < len(names):
        raise ImageSourceError(
            f"{str(path)!r} has to name the classes from 0 on, at most {IGNORED} and none twice, and names {names}"
        )
    return names
