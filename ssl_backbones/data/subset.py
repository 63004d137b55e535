"""Some of the images of a source: at rows, of the classes that a file lists, or all but a few of every class."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssl_backbones.checks import check
from ssl_backbones.data.checks import require_labels
from ssl_backbones.data.digest_index import KEPT_FROM
from ssl_backbones.data.digests import as_rows, digest_of_bytes
from ssl_backbones.data.images import Images, ImageSourceError
from ssl_backbones.data.keys import PathKeys
from ssl_backbones.data.labels import relabelled
from ssl_backbones.data.threads import THREADS, of_each
from ssl_backbones.distributed import say
from ssl_backbones.files import regular, write_file
from ssl_backbones.refusal import reason
from ssl_backbones.views import permutation

HOLD_OUT_SEED = 0
"""Random seed for drawing the held-out images, the same whatever the run's own seed."""
SMALL = 0.1
"""Share of a source below which a part of it is small."""
HELD_OUT = "held_out.txt"
"""The file in a run's folder that names them."""


class Subset(Images):
    """The images of a source at some of its rows, in that order."""

    def __init__(self, images: Images, rows: np.ndarray) -> None:
        self.images, self.rows, self.place = images, np.asarray(rows, np.int64), images.place
        keys = images.keys
        self.keys = keys.at(self.rows) if isinstance(keys, PathKeys) else [keys[int(row)] for row in self.rows]
        self.labels = None if images.labels is None else np.asarray(images.labels)[self.rows]
        self.classes = images.classes
        self.policy, self.altered = images.policy, images.altered
        self.shards = images.shards and images.shards.among(self.rows)

    @cached_property
    def fingerprint(self) -> str:
        return self.digest_over(self.images.fingerprint)

    @cached_property
    def whole_fingerprint(self) -> str:
        return self.images.whole_fingerprint

    @cached_property
    def fingerprint_by_sizes(self) -> str:
        return self.digest_over(self.images.fingerprint_by_sizes)

    @cached_property
    def part_mark(self) -> str:
        return f"-{self.fingerprint[:8]}"

    def digest_over(self, fingerprint: str) -> str:
        """A digest of the source's fingerprint and the rows."""
        return digest([fingerprint, *map(str, self.rows.tolist())])

    @property
    def digests(self) -> np.ndarray | None:  # type: ignore[override]
        return None if self.images.digests is None else self.images.digests[self.rows]

    def whole_digests(self) -> np.ndarray | None:
        """Those of a small part are read for themselves; those of a larger one are the source's, which are kept."""
        count = len(self.rows)
        if 0 < count < max(KEPT_FROM, SMALL * len(self.images)) and self.raw(0) is not None:
            threads = THREADS if self.shards is None else 1
            read = of_each(range(count), self.whole_digest, "images read for their digests", threads=threads)
            return as_rows(list(read))
        whole = self.images.whole_digests()
        return None if whole is None else whole[self.rows]

    def whole_digest(self, index: int) -> bytes:
        """The digest over every byte of an image."""
        return digest_of_bytes(self.raw(index), whole=True)

    def raw(self, index: int) -> bytes | None:
        return self.images.raw(int(self.rows[index]))

    def soon(self, shards: np.ndarray) -> None:
        self.images.soon(shards)

    def __getitem__(self, index: int) -> Image.Image:
        return self.images[int(self.rows[index])]


def at(images: Images, rows: np.ndarray) -> Images:
    """The images at some rows, in order: the source itself where that is all of them."""
    return images if len(rows) == len(images) else Subset(images, rows)


@dataclass(frozen=True)
class Selection:
    """The part of a source that is taken: the classes that a file lists, and all but some images of every class."""

    classes: str = ""
    """A file with a class on each line; empty for all."""
    hold_out: int = 0
    """Images of each class held out for validation."""

    def of(self, images: Images, validation: Images | None) -> tuple[Images, Images | None]:
        """The images to learn from, and those asked about: the ones held out, where there are any.

        The same images are held out by every command. ImageSourceError where the source has not what is asked for.
        """
        if self.classes:
            names = listed_classes(images, Path(self.classes))
            images = of_classes(images, names)
            validation = validation and of_classes(validation, names)
        if not self.hold_out:
            return images, validation
        rest, held = hold_out(images, self.hold_out)
        say(f"{len(held)} of {len(images)} images are held out, {self.hold_out} a class, the same by every command.")
        return rest, held

    def account(self, images: Images, validation: Images | None) -> dict[str, Any]:
        """An account of what was taken, for results.json; empty for all of a source."""
        told: dict[str, Any] = {"classes": list(map(str, images.classes))} if self.classes else {}
        if self.hold_out and validation is not None:
            told |= {"held_out": self.hold_out, "seed": HOLD_OUT_SEED, "named_in": HELD_OUT}
            told["sha256"] = hashlib.sha256(as_list(validation)).hexdigest()
        return {"selection": told} if told else {}

    def save(self, folder: Path, validation: Images | None) -> None:
        """Name the images held out, if there are any, in a file of a run's folder."""
        if self.hold_out and validation is not None:
            write_file(folder / HELD_OUT, as_list(validation))


def check_hold_out(count: int, validation: str) -> None:
    """ValueError for a negative number of images to hold out, and for any where validation images are named."""
    check(count >= 0, "hold_out", count, "at least 0")
    check(not count or not validation, "hold_out", count, "0 where validation images are named")


def listed_classes(images: Images, path: Path) -> set[str]:
    """The classes that a file names, one on a line; ImageSourceError where it cannot be read, or names any other."""
    require_labels(images, "a list of classes (--classes)")
    try:
        lines = regular(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ImageSourceError(
            f"{path} cannot be read ({reason(error)}): give --classes a file with a class on each line"
        ) from error
    names = {line.strip() for line in lines if line.strip()}
    unknown = sorted(names - set(map(str, images.classes)))
    if unknown or not names:
        said = f"{unknown[0]!r} and {len(unknown) - 1} more are no classes of the data" if unknown else "it names none"
        raise ImageSourceError(
            f"{path} does not fit the data ({said}): name classes as the data do, such as {str(images.classes[0])!r}"
        )
    return names


def of_classes(images: Images, names: Collection[str]) -> Images:
    """The images of some classes, numbered anew in the order of the source; all of a source without labels."""
    if images.labels is None:
        return images
    listed = [number for number, name in enumerate(images.classes) if str(name) in names]
    rows = np.flatnonzero(np.isin(np.asarray(images.labels), listed))
    return relabelled(at(images, rows), [images.classes[number] for number in listed])


def hold_out(images: Images, count: int) -> tuple[Images, Images]:
    """The images less `count` of every class, and those; drawn by a seed of their own.

    ImageSourceError where a class would keep none.
    """
    labels = require_labels(images, f"holding out {count} images a class (--hold_out)")
    held = drawn_by_class(labels, HOLD_OUT_SEED)
    small = next((label for label, members in held.items() if len(members) <= count), None)
    if small is not None:
        raise ImageSourceError(
            f"{images.classes[small]!r} has {len(held[small])} images, and --hold_out {count} would leave none to "
            "train on: hold out fewer"
        )
    kept_out = np.sort(np.concatenate([members[:count] for members in held.values()]))
    return at(images, np.setdiff1d(np.arange(len(labels)), kept_out)), at(images, kept_out)


def drawn_by_class(labels: np.ndarray, seed: int) -> dict[int, np.ndarray]:
    """The rows of each class of the labels (N,), by label, in an order that the seed draws for all of them."""
    order = permutation(seed, 0, len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    classes, starts = np.unique(labels[order], return_index=True)
    return dict(zip(classes.tolist(), np.split(order, starts[1:]), strict=False))


def as_list(images: Images) -> bytes:
    """The names of the images, one on a line, as `listed` reads them."""
    return "".join(f"{key}\n" for key in images.keys).encode("utf-8", "surrogateescape")


def digest(parts: Sequence[str]) -> str:
    """A sha256 over texts."""
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
