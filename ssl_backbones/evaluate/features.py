"""Features of all images of a source, extracted once: shared out among the processes, kept in files that name them.

A file holds the features of BLOCK images and, in its header, what they are of (weights, layer, images, preparation,
precision) with a digest of the values. An extraction that was stopped goes on after the last whole file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ssl_backbones.data import BatchDataset, Batches, Images, Unreadable
from ssl_backbones.data.decode import USUAL_POLICY
from ssl_backbones.data.subset import at
from ssl_backbones.data.unreadable import is_readable
from ssl_backbones.distributed import first_decides, gather_objects, say, share_first, world_size
from ssl_backbones.evaluate.feature_rows import Block, FeatureRows
from ssl_backbones.evaluate.model import EvaluatedModel
from ssl_backbones.files import object_in, write_file
from ssl_backbones.refusal import Refusal, reason
from ssl_backbones.train.embed import embed
from ssl_backbones.train.precision import DTYPES, Precision, check_precision
from ssl_backbones.views import MultiView, Transform

BLOCK = 16_384
"""Images of a file: what a stop may cost."""
DIGITS = 16
"""Hexadecimal digits of the key that names a file."""


class CacheError(Refusal, OSError):
    """A folder for features that cannot be written to."""


class NotFiniteError(Refusal, ValueError):
    """Features that are NaN or infinite."""


@dataclass(frozen=True)
class Features:
    """A backbone's features of N images of a source."""

    rows: Tensor
    """(N, D) in single precision, on the CPU, once for all processes of a machine; (n, D) of those that are wanted."""
    readable: np.ndarray
    """(N,) bool. The row of an image that could not be read is that of another, or none: leave it out."""
    unreadable: tuple[str, ...]
    """The keys of those images."""


@dataclass(frozen=True)
class Extraction:
    """The settings of extraction; of these, only precision and seed show in the values."""

    cache: Path | None = None
    """A folder for the files; None to keep nothing."""
    precision: Precision = "fp32"
    batch_size: int = 256
    workers: int = 0
    """Processes that read images, per process."""
    unreadable_share: float = 0.01
    """More unreadable images than this share are refused."""
    seed: int = 0
    """Random seed for transforms that draw."""


def features_of(
    model: EvaluatedModel,
    images: Images,
    how: Extraction,
    *,
    only: np.ndarray | None = None,
    views: MultiView | None = None,
    wanted: np.ndarray | None = None,
) -> Features:
    """The features of all images, or of those at `only` (n,), in every process, the same for any number of them.

    Where some are `wanted` (N,) bool, of all that are looked at, those that can be read have a row, and no other. With
    `views`, those of V views of each image stand in a row side by side, (N, V D), instead of the middle crop's.
    Raises CacheError where they cannot be kept, and TooManyUnreadableError.
    """
    check_precision(how.precision, model.device)
    transform: Transform = views or model.crop
    chosen = np.arange(len(images)) if only is None else only.astype(np.int64)
    network = SideBySide(model.network) if views else model.network
    extractor = Extractor(network, Batches(images, transform, how.seed), model.device, how)
    store = Store(how.cache, identity(model, images, how, transform, None if only is None else chosen), images, chosen)
    unreadable = Unreadable(len(chosen), how.unreadable_share)
    rows = FeatureRows(images, chosen, wanted)
    for start in range(0, len(chosen), BLOCK):
        indices = chosen[start : start + BLOCK]
        block = store.read(start // BLOCK, indices, model.device)
        if block is None:
            block = extractor.block(indices)
            if not block[0].isfinite().all():
                raise NotFiniteError(
                    f"features of {model.name} in {how.precision} are not finite: where its training went "
                    "well (its log tells), take --precision fp32"
                )
            say(f"{model.name}: {start + len(indices)} of {len(chosen)} images embedded")
            store.write(start // BLOCK, block)
        unreadable.add(block[1])
        rows.add(block)
    if store.found:
        say(f"{model.name}: the features of {images.fingerprint[:8]} were in {how.cache}")
    return Features(rows.finished(), rows.readable, tuple(sorted(unreadable.reasons)))


def identity(
    model: EvaluatedModel, images: Images, how: Extraction, transform: Transform, only: np.ndarray | None
) -> dict[str, Any]:
    """All that features depend on, as the header of their files has it."""
    return {
        **model.identity,
        "images": images.fingerprint,
        "only": None if only is None else hashlib.sha256(only.astype("<i8").tobytes()).hexdigest(),
        "transform": repr(transform),
        "precision": how.precision,
        "seed": how.seed,
        **decoded(images),
    }


def decoded(images: Images) -> dict[str, Any]:
    """The rules that images are decoded by, where they are not the usual ones; channels under their option's name."""
    usual, own = asdict(USUAL_POLICY), asdict(images.policy or USUAL_POLICY)
    return {"in_chans" if name == "channels" else name: rule for name, rule in own.items() if rule != usual[name]}


class SideBySide(nn.Module):
    """A network that embeds views one after the other."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, views: list[Tensor]) -> Tensor:
        """Features (B, V D) of V views (B, 3, S, S)."""
        return torch.cat([self.network(view) for view in views], dim=1)


@dataclass(frozen=True)
class Extractor:
    """Makes features that are the same with more processes: every image has its place in a batch of one size."""

    network: nn.Module
    dataset: BatchDataset
    device: torch.device
    how: Extraction

    def block(self, indices: np.ndarray) -> Block:
        """The features of the images at `indices`, in every process."""
        batch = min(self.how.batch_size, len(indices))
        whole = batch * world_size()
        padded = np.resize(indices, -(-len(indices) // whole) * whole)
        dtype = DTYPES.get(self.how.precision)
        rows, mine = embed(
            self.network,
            self.dataset,
            padded,
            self.device,
            batch_size=batch,
            workers=self.how.workers,
            autocast=torch.autocast(self.device.type, dtype) if dtype else None,
        )
        unreadable = {key: reason for part in gather_objects(mine) for key, reason in part.items()}
        return rows[: len(indices)].contiguous(), unreadable


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

    def path(self, number: int) -> Path:
        """The file of a block."""
        assert self.folder is not None
        return self.folder / f"{self.key}-{number:05}.safetensors"

    def read(self, number: int, indices: np.ndarray, device: torch.device) -> Block | None:
        """The content (n, D) of the file of the images at `indices` (n,), in every process.

        None without a file, or where it cannot be relied on.
        """
        if self.folder is None:
            return None
        found: list[Block] = []

        def look() -> tuple[tuple[int, ...], dict[str, str]] | None:
            path = self.path(number)
            if not path.exists():
                return None
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
