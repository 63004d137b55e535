"""A folder of image files, nested as it may be; with class folders where it has them."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_backbones.data.decode import USUAL_POLICY, DecodePolicy, decode
from ssl_backbones.data.digest_index import Contents, contents_of
from ssl_backbones.data.formats import passed_over, suffixes
from ssl_backbones.data.images import Images, ImageSourceError
from ssl_backbones.data.keys import PathKeys, bytes_of
from ssl_backbones.data.splits import splits_among
from ssl_backbones.data.walk import images_below, kind_of

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

        Raises ImageSourceError where there is no image.
        """
        self.root = self.place = Path(root)
        self.policy = policy
        if not self.root.is_dir():
            raise ImageSourceError(f"{str(root)!r} is not a folder: give the folder that holds the images")
        others: Counter[str] = Counter()
        paths = sorted(images_below(self.root, others))
        said = passed_over(others)
        if not paths:
            looked_for = f"files ending in {', '.join(suffixes())} are looked for"
            raise ImageSourceError(
                f"there is no image in {str(root)!r} or below it: {looked_for}{said and f'; {said}'}"
            )
        if said:
            logger.warning("%s: %s", self.root, said)
        paths, self.classes = classified(self.root, paths, among)
        self.keys = self.files = PathKeys(paths)
        self.labels = labels_from(paths, self.classes) if self.classes else None

    def __getitem__(self, index: int) -> Image.Image:
        path = self.root / self.keys[index]
        return decode(path, str(path), self.policy)

    @cached_property
    def contents(self) -> Contents:
        """Taken at first use: it asks the disk about every file, and reads those that it does not know."""
        return contents_of(self.root, self.files, str(self.root.absolute()))

    @property
    def sizes(self) -> np.ndarray:  # type: ignore[override]  # mypy wants what it overrides to be read-only as well
        return self.contents.sizes

    @property
    def digests(self) -> np.ndarray:  # type: ignore[override]
        return self.contents.digests

    def whole_digests(self) -> np.ndarray:
        return contents_of(self.root, self.files, str(self.root.absolute()), whole=True).digests

    def raw(self, index: int) -> bytes | None:
        return bytes_of(self.root / self.keys[index])


def classified(root: Path, paths: list[str], among: Sequence[str]) -> tuple[list[str], list[str]]:
    """The images that count, and their classes, sorted: none where an image lies outside of the folders."""
    if any("/" not in path for path in paths):
        return paths, []
    found = {path.split("/", 1)[0] for path in paths}
    if found <= set(among):
        return paths, sorted(found)
    splits = splits_among(found)
    if splits == found:
        return paths, []
    if splits:
        named = ", ".join(sorted(splits))
        logger.warning("%s: left out as splits, not classes: %s (name one with --validation)", root, named)
        paths = [path for path in paths if path.split("/", 1)[0] not in splits]
    classes = sorted(found - splits)
    if len(classes) < 2:
        return paths, []
    say_empty(root, found)
    return paths, classes


def say_empty(root: Path, found: set[str]) -> None:
    """A line in the log on the folders that hold no image."""
    entries = (entry for entry in os.scandir(root) if not entry.name.startswith("."))
    empty = sorted({entry.name for entry in entries if kind_of(entry) == "folder"} - found)
    if empty:
        logger.warning("no image in %s below %s: not counted as classes", ", ".join(map(repr, empty)), root)


def labels_from(paths: list[str], classes: list[str]) -> np.ndarray:
    """The label of each path (N,): the number of its first folder among the classes."""
    number = {name: label for label, name in enumerate(classes)}
    return np.array([number[path.split("/", 1)[0]] for path in paths], np.int64)
