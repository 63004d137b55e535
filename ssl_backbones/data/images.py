"""A collection of images: decoded on demand, named by keys that survive a copy of the data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from PIL import Image

from ssl_backbones.refusal import Refusal


class UnreadableImageError(Refusal, OSError):
    """One image that cannot be decoded; the message names it and says why."""


class ImageSourceError(Refusal, ValueError):
    """A source of images that cannot serve as asked; the message is one sentence, with the way out."""


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

    fingerprint: str
    """A sha256 over the keys, labels and sizes in bytes: alike for the same data, whatever its place on disk."""

    sizes: np.ndarray | None = None
    """(N,): bytes of each image as it is encoded, -1 for a missing one; None where nobody knows."""

    in_process = False
    """True if only this process can read them, and no worker beside it."""

    def __len__(self) -> int:
        return len(self.keys)

    def raw(self, index: int) -> bytes | None:
        """The bytes of an image as it is encoded; None where they are not to be had."""
        return None

    @abstractmethod
    def __getitem__(self, index: int) -> Image.Image:
        """The image as upright RGB, or UnreadableImageError."""
