"""The files of a list below a folder, and the images in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np
from PIL import Image

from ssl_backbones.data.decode import USUAL_POLICY, DecodePolicy, decode
from ssl_backbones.data.digest_index import Contents, contents_of_list
from ssl_backbones.data.images import Images
from ssl_backbones.data.keys import PathKeys, bytes_of


@final
class ListedFiles:
    """N files by their paths below a folder, in the order of a list."""

    def __init__(self, root: Path, paths: Iterable[str]) -> None:
        self.root, self.keys = root, PathKeys(paths)

    @cached_property
    def contents(self) -> Contents:
        """The sizes and digests of all files."""
        return contents_of_list(self.root, self.keys)

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each file (N,), -1 of one that is not there."""
        return self.contents.sizes

    @property
    def digests(self) -> np.ndarray:
        """The digests of all files (N, D)."""
        return self.contents.digests

    def whole_digests(self) -> np.ndarray:
        """The digests of all files (N, D), over every byte."""
        return contents_of_list(self.root, self.keys, whole=True).digests

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Path:
        return self.root / self.keys[index]


@final
class ListedImages(Images):
    """Images by their paths below a folder, in the order of a list."""

    labels = None
    classes: Sequence[str] = ()

    def __init__(self, root: Path, paths: Iterable[str], policy: DecodePolicy = USUAL_POLICY) -> None:
        self.files, self.policy = ListedFiles(root, paths), policy
        self.keys = self.files.keys

    @property
    def sizes(self) -> np.ndarray:  # type: ignore[override]
        return self.files.sizes

    @property
    def digests(self) -> np.ndarray:  # type: ignore[override]
        return self.files.digests

    def whole_digests(self) -> np.ndarray:
        return self.files.whole_digests()

    def encoded(self, index: int) -> Path:
        """The file of an image."""
        return self.files[index]

    def raw(self, index: int) -> bytes | None:
        return bytes_of(self.files[index])

    def __getitem__(self, index: int) -> Image.Image:
        path = self.files[index]
        return decode(path, str(path), self.policy)
