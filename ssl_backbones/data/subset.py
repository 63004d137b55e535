"""Some of the images of a source: at rows, of the classes that a file lists, or all but a few of every class."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_backbones.data.checks import relabelled, require_labels
from ssl_backbones.data.images import Images, ImageSourceError
from ssl_backbones.views import permutation

HOLD_OUT_SEED = 0
"""Of the draw of images that are held out, which are the same whatever the run's own seed."""


class Subset(Images):
    """The images of a source at some of its rows, in that order."""

    def __init__(self, images: Images, rows: np.ndarray) -> None:
        self.images, self.rows = images, np.asarray(rows, np.int64)
        self.keys = [images.keys[int(row)] for row in self.rows]
        self.labels = None if images.labels is None else np.asarray(images.labels)[self.rows]
        self.classes = images.classes
        self.fingerprint = digest([images.fingerprint, *map(str, self.rows.tolist())])

    def __getitem__(self, index: int) -> Image.Image:
        return self.images[int(self.rows[index])]


def at(images: Images, rows: np.ndarray) -> Images:
    """The images at some rows, in order: the source itself where that is all of them."""
    return images if len(rows) == len(images) else Subset(images, rows)


def of_classes(images: Images, path: Path) -> Images:
    """The images of the classes that a file names, one on a line, numbered anew in the order of the source.

    ImageSourceError where the file cannot be read, or names what is no class of the source.
    """
    require_labels(images, "a list of classes (--classes)")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ImageSourceError(
            f"{path} cannot be read ({error}): give --classes a file with a class on each line"
        ) from error
    names = {line.strip() for line in lines if line.strip()}
    unknown = sorted(names - set(map(str, images.classes)))
    if unknown or not names:
        said = f"{unknown[0]!r} and {len(unknown) - 1} more are no classes of the data" if unknown else "it names none"
        raise ImageSourceError(
            f"{path} does not fit the data ({said}): name classes as the data do, such as {str(images.classes[0])!r}"
        )
    listed = [number for number, name in enumerate(images.classes) if str(name) in names]
    rows = np.flatnonzero(np.isin(np.asarray(images.labels), listed))
    return relabelled(at(images, rows), [images.classes[number] for number in listed])


def hold_out(images: Images, count: int) -> tuple[Images, Images]:
    """The images less `count` of every class, and those; drawn by a seed of their own.

    ImageSourceError where a class would keep none.
    """
    labels = require_labels(images, f"holding out {count} images a class (--hold_out)")
    order = permutation(HOLD_OUT_SEED, 0, len(labels))
    held = [order[labels[order] == label] for label in range(len(images.classes))]
    small = next((label for label, members in enumerate(held) if 0 < len(members) <= count), None)
    if small is not None:
        raise ImageSourceError(
            f"{images.classes[small]!r} has {len(held[small])} images, and --hold_out {count} would leave none to "
            "train on: hold out fewer"
        )
    kept_out = np.sort(np.concatenate([members[:count] for members in held]))
    return at(images, np.setdiff1d(np.arange(len(labels)), kept_out)), at(images, kept_out)


def as_list(images: Images) -> bytes:
    """The names of the images, one on a line, as `listed` reads them."""
    return "".join(f"{key}\n" for key in images.keys).encode("utf-8", "surrogateescape")


def digest(parts: Sequence[str]) -> str:
    """A sha256 over texts."""
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
