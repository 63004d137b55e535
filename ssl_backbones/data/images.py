"""A collection of images: decoded on demand, named by keys that survive a copy of the data."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from ssl_backbones.data.keys import fingerprint_by_sizes_of, fingerprint_of
from ssl_backbones.data.shards import Shards
from ssl_backbones.refusal import Refusal


class UnreadableImageError(Refusal, OSError):
    """One image that cannot be decoded; the message names it and says why."""


class ImageSourceError(Refusal, ValueError):
    """A source of images that cannot serve as asked; the message is one sentence, with the way out."""


class NoImageError(ImageSourceError):
    """A source without any image of the formats that are looked for."""


class Images(ABC):
    """Images in a fixed order. Pickles cheaply: a worker reopens its files."""

    keys: Sequence[str]
    """A stable name for each image, unique: its path below the root, or file and row of a parquet."""

    labels: np.ndarray | None
    """(N,) int64, or None where the source has none."""

    classes: Sequence[str]
    """Names of the labels 0..C-1; empty where there are none."""

    labels_from: ClassVar[str] = ""
    """The origin of the labels in a word, as a sentence goes on with their names; empty where there is none."""

    sizes: np.ndarray | None = None
    """(N,): bytes of each image as it is encoded, -1 for a missing one; None where nobody knows."""

    digests: np.ndarray | None = None
    """(N, D) uint8: the digest of each image as it is encoded (`data/digests.py`); None where nobody knows."""

    place: Path | None = None
    """The file or folder on this machine that they lie in, for what is kept beside them; None where there is none."""

    shards: Shards | None = None
    """The parts that they are best read in, one after another; None where any image is as quickly read as any other."""

    policy: Any = None
    """The rules by which images are decoded, where they are decoded here."""

    altered = ""
    """The form that a cache changed the images into, in words; empty for images as they were."""

    whole = False
    """True if every image comes with all of its pixels, however coarsely its views let it be decoded."""

    in_process = False
    """True if only this process can read them, and no worker beside it."""

    def __len__(self) -> int:
        return len(self.keys)

    def at_hand(self) -> None:
        """Make images that another process opened this one's own, as far as they are to be; ImageSourceError."""
        return  # files that are opened anew for each image are

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 over the keys, labels and digests: alike for the same data, whatever its place on disk."""
        if self.digests is None:
            raise ImageSourceError(
                f"the images of {type(self).__name__} have no fingerprint, by which what is kept of them knows them "
                "again: set `fingerprint` to a text that other images do not have"
            )
        return fingerprint_of(self.keys, self.labels, self.digests)

    @cached_property
    def whole_fingerprint(self) -> str:
        """The fingerprint of the whole source that these are some images of; their own where they are all of it."""
        return self.fingerprint

    @cached_property
    def fingerprint_by_sizes(self) -> str:
        """The fingerprint that records of 0.1.0.dev0 name the same images by; it is compared with those alone."""
        if self.sizes is None:
            return self.fingerprint
        return fingerprint_by_sizes_of(self.keys, self.labels, self.sizes)

    @cached_property
    def part_mark(self) -> str:
        """A mark of the part that they are of what lies in their place, for the name of what is kept beside it."""
        return ""

    def whole_digests(self) -> np.ndarray | None:
        """Digests (N, D) like `digests`, over every byte of each image; None where nobody knows.

        Reads what no index knows by size, times and inode: for what is kept of images, and used again.
        """
        return None

    @cached_property
    def content_digest(self) -> str | None:
        """A sha256 over every byte of all images; None where nobody knows."""
        whole = self.whole_digests()
        return None if whole is None else hashlib.sha256(whole.tobytes()).hexdigest()

    def known_as(self, recorded: object) -> bool:
        """True if a record, of whatever age, names these images by their fingerprint."""
        return recorded == self.fingerprint or recorded == self.fingerprint_by_sizes

    def takes_in(self, path: Path) -> bool:
        """True if images that are written to a path would be among these when they are opened again."""
        return False

    def raw(self, index: int) -> bytes | None:
        """The bytes of an image as it is encoded; None where they are not to be had."""
        return None

    def soon(self, shards: np.ndarray) -> None:
        """Be told which shards (S,) are read now and next, in this order; nothing needs to come of it."""
        return

    @abstractmethod
    def __getitem__(self, index: int) -> Image.Image:
        """The image as upright RGB, or with channels of its own where the policy keeps them; UnreadableImageError."""


def by_content(images: Images) -> str:
    """The fingerprint of images."""
    return images.fingerprint


def by_sizes(images: Images) -> str:
    """The fingerprint that records of 0.1.0.dev0 name images by."""
    return images.fingerprint_by_sizes
