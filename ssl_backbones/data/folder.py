"""A folder of image files, nested as it may be; with class folders where it has them."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_backbones.data.decode import USUAL_POLICY, DecodePolicy, decode
from ssl_backbones.data.digest_index import Contents, Files, contents_as_asked, contents_of
from ssl_backbones.data.formats import passed_over, suffixes
from ssl_backbones.data.images import Images, ImageSourceError, NoImageError
from ssl_backbones.data.keys import bytes_of
from ssl_backbones.data.splits import splits_among
from ssl_backbones.data.walk import Listing, kind_of, listing_of

logger = logging.getLogger(__name__)


class ImageFolder(Images):
    """All images below a folder, in the order of their paths.

    Where no image lies in the folder itself and at least two of its folders hold some, those are the classes; otherwise
    there are no labels. A folder without images is no class, nor is one with the name of a split, which is left out.
    What begins with a dot is not looked at. Links are followed, out of the folder too, but not round in a circle. A
    link that leads nowhere counts as an unreadable image.
    """

    labels_from = "folders"

    def __init__(self, root: str | Path, policy: DecodePolicy = USUAL_POLICY, among: Sequence[str] = ()) -> None:
        """Look for the images; `among` are classes known already: folders that all bear their names are classes.

        Raises NoImageError where there is no image, and ImageSourceError for what is no folder.
        """
        self.root = self.place = Path(root)
        self.policy = policy
        if not self.root.is_dir():
            raise ImageSourceError(f"{str(root)!r} is not a folder: give the folder that holds the images")
        others: Counter[str] = Counter()
        found = listing_of(self.root, others)
        said = passed_over(others)
        if not len(found.keys):
            looked_for = f"files ending in {', '.join(suffixes())} are looked for"
            raise NoImageError(f"there is no image in {str(root)!r} or below it: {looked_for}{said and f'; {said}'}")
        if said:
            logger.warning("%s: %s", self.root, said)
        left_out, self.classes = classified(self.root, [name for name, _ in found.folders], among)
        if left_out:
            found = without(found, left_out)
        self.keys = self.files = found.keys
        self.labels = labels_from(found, self.classes) if self.classes else None
        self.asked: Files | None = Files(self.root, found.keys, found.sizes, found.marks)

    def __getitem__(self, index: int) -> Image.Image:
        path = self.root / self.keys[index]
        return decode(path, str(path), self.policy)

    @cached_property
    def contents(self) -> Contents:
        """Taken at first use: it reads the files that no index knows as they were when they were looked for."""
        name = str(self.root.absolute())
        asked, self.asked = self.asked, None  # its marks are of no use afterwards
        return contents_of(self.root, self.files, name) if asked is None else contents_as_asked(asked, name)

    @property
    def sizes(self) -> np.ndarray:  # type: ignore[override]  # mypy wants what it overrides to be read-only as well
        """The bytes of each file (N,)."""
        return self.contents.sizes

    @property
    def digests(self) -> np.ndarray:  # type: ignore[override]
        """The digest of each file (N,)."""
        return self.contents.digests

    def whole_digests(self) -> np.ndarray:
        return contents_of(self.root, self.files, str(self.root.absolute()), whole=True).digests

    def takes_in(self, path: Path) -> bool:
        root, there = self.root.resolve(), path.expanduser().resolve()
        return there.is_relative_to(root) and not any(name.startswith(".") for name in there.relative_to(root).parts)

    def raw(self, index: int) -> bytes | None:
        return bytes_of(self.root / self.keys[index])


def classified(root: Path, folders: Sequence[str], among: Sequence[str]) -> tuple[set[str], list[str]]:
    """The folders that are left out, and the classes, sorted, by the folders that hold images, each at least once.

    There is none where an image lies outside of the folders, which has an empty name.
    """
    found = set(folders)
    if "" in found:
        if len(found) > 2:
            logger.warning("%s holds images beside its folders: none of these is a class", root)
        return set(), []
    if found <= set(among):
        return set(), sorted(found)
    splits = splits_among(found)
    if splits == found:
        return set(), []
    if splits:
        named = ", ".join(sorted(splits))
        logger.warning("%s: left out as splits, not classes: %s (name one with --validation)", root, named)
    classes = sorted(found - splits)
    if len(classes) < 2:
        return splits, []
    say_empty(root, found)
    return splits, classes


def without(found: Listing, left_out: Collection[str]) -> Listing:
    """The same images but for those of some folders."""
    stay = tuple((name, count) for name, count in found.folders if name not in left_out)
    names, counts = zip(*found.folders, strict=True)
    rows = np.flatnonzero(np.repeat([name not in left_out for name in names], counts))
    return Listing(found.keys.at(rows), found.sizes[rows], found.marks[rows], stay)


def say_empty(root: Path, found: set[str]) -> None:
    """A line in the log on the folders that hold no image."""
    entries = (entry for entry in os.scandir(root) if not entry.name.startswith("."))
    empty = sorted({entry.name for entry in entries if kind_of(entry) == "folder"} - found)
    if empty:
        logger.warning("no image in %s below %s: not counted as classes", ", ".join(map(repr, empty)), root)


def labels_from(found: Listing, classes: Sequence[str]) -> np.ndarray:
    """The label of each image (N,): the number of its first folder among the classes."""
    number = {name: label for label, name in enumerate(classes)}
    names, counts = zip(*found.folders, strict=True)
    return np.repeat(np.array([number[name] for name in names], np.int64), counts)
