"""Files of features that name what they are of, so that an extraction that was stopped goes on behind the last one.

A file holds the features of a block of images and, in its header, what they are of (weights, layer, images,
preparation, precision) with a digest of the values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ssl_backbones.data import Images
from ssl_backbones.data.subset import at
from ssl_backbones.data.unreadable import is_readable
from ssl_backbones.distributed import first_decides, say, share_first, world_size
from ssl_backbones.evaluate.feature_rows import Block
from ssl_backbones.files import object_in, write_file
from ssl_backbones.refusal import Refusal, reason

DIGITS = 16
"""Hexadecimal digits of the key that names a file."""


def folder_beside(out: Path) -> Path:
    """The folder for features that evaluations share whose results lie side by side."""
    return out.absolute().parent / "features"


class CacheError(Refusal, OSError):
    """A folder for features that cannot be written to."""


class Store:
    """The files of one question, read and written by the first process for all. It says what it does not take."""

    def __init__(self, folder: Path | None, question: dict[str, Any], images: Images, rows: np.ndarray) -> None:
        """The files are of the images at some rows (n,), whose every byte they are known by."""
        self.folder, self.images, self.found, self.content = folder, images, 0, ""
        self.question = json.dumps(question, sort_keys=True)
        self.key = hashlib.sha256(self.question.encode()).hexdigest()[:DIGITS]
        if folder is not None:
            first_decides(lambda: make(folder))
            self.content = first_decides(lambda: str(at(images, rows).content_digest))

    def missing(self, count: int) -> list[int]:
        """Those of so many blocks that have no file."""
        if self.folder is None:
            return list(range(count))
        return first_decides(lambda: [number for number in range(count) if not self.path(number).exists()])

    def path(self, number: int) -> Path:
        """The file of a block."""
        assert self.folder is not None
        return self.folder / f"{self.key}-{number:05}.safetensors"

    def read(self, number: int, indices: np.ndarray, device: torch.device) -> Block | None:
        """The content (n, D) of the file of the images at `indices` (n,), in every process.

        None where it cannot be relied on.
        """
        found: list[Block] = []

        def look() -> tuple[tuple[int, ...], dict[str, str]] | None:
            path = self.path(number)
            try:
                block = load(path, self.question, number, len(indices), self.content)
                self.require_lost(indices, block[1])
                found.append(block)
            except (SafetensorError, OSError, KeyError, ValueError) as error:
                say(f"{path} is not used ({error}): its images are embedded again")
                return None
            return tuple(found[0][0].shape), found[0][1]

        answer = first_decides(look)
        if answer is None:
            return None
        self.found += 1
        if world_size() == 1:
            return found[0]
        rows = found[0][0].to(device) if found else torch.empty(answer[0], device=device)
        share_first(rows)
        return rows.cpu(), answer[1]

    def require_lost(self, indices: np.ndarray, lost: Collection[str]) -> None:
        """ValueError where an image of those at `indices` (n,) that was lost can be read now."""
        for row in indices.tolist() if lost else ():
            if self.images.keys[row] in lost and is_readable(self.images, row):
                raise ValueError(f"{self.images.keys[row]!r} could not be read then, and can be now")

    def write(self, number: int, block: Block) -> None:
        """Write a block into its file, if there is a folder for it."""
        if self.folder is not None:
            first_decides(lambda: keep(self.path(number), self.question, number, block, self.content))


def make(folder: Path) -> None:
    """Make the folder; raises CacheError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(unwritable(folder, error)) from error


def load(path: Path, question: str, number: int, count: int, content: str) -> Block:
    """The block that a file holds, if it answers the question for images of the same content, and is whole."""
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        rows: Tensor = file.get_tensor("features")
    if (header.get("question"), header.get("block")) != (question, str(number)) or len(rows) != count:
        raise ValueError("it holds the features of something else")
    if "content" not in header:
        raise ValueError("it was kept before every byte of the images was compared")
    if header["content"] != content:
        raise ValueError("it holds the features of images that differ in some bytes")
    if header.get("sha256") != digest(rows):
        raise ValueError("its values are not those that were written")
    return rows, object_in(header["unreadable"])


def keep(path: Path, question: str, number: int, block: Block, content: str) -> None:
    """Put a file in place as a whole; raises CacheError where that fails."""
    rows, unreadable = block
    header = {
        "question": question,
        "block": str(number),
        "content": content,
        "sha256": digest(rows),
        "unreadable": json.dumps(unreadable),
    }
    try:
        write_file(path, save({"features": rows}, header))
    except OSError as error:
        raise CacheError(unwritable(path.parent, error)) from error


def unwritable(folder: Path, error: OSError) -> str:
    """The sentence on a folder that features cannot be kept in."""
    return f"features cannot be kept in {folder} ({reason(error)}): name a folder that can be written to with --cache"


def digest(rows: Tensor) -> str:
    """A sha256 over the values."""
    return hashlib.sha256(rows.numpy().data).hexdigest()
