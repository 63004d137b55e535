"""Features of all images of a source, extracted once: shared out among the processes, kept in files that name them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_backbones.data import BatchDataset, Batches, Images, Unreadable
from ssl_backbones.data.decode import USUAL_POLICY
from ssl_backbones.distributed import gather_objects, say, world_size
from ssl_backbones.evaluate.feature_rows import Block, FeatureRows
from ssl_backbones.evaluate.feature_store import Store
from ssl_backbones.evaluate.model import EvaluatedModel
from ssl_backbones.products import ExactConvolutions
from ssl_backbones.refusal import Refusal
from ssl_backbones.train.embed import embed_each
from ssl_backbones.train.precision import DTYPES, Precision, check_precision
from ssl_backbones.views import MultiView, Transform

BLOCK = 2_048
"""Images of a file: what a stop may cost."""


class FeaturesNotFiniteError(Refusal, ValueError):
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
    """The settings of extraction; of these, only precision shows in the values."""

    cache: Path | None = None
    """A folder for the files; None to keep nothing."""
    precision: Precision = "fp32"
    batch_size: int = 256
    workers: int = 0
    """Processes that read images, per process."""
    unreadable_share: float = 0.01
    """More unreadable images than this share are refused."""


def features_of(
    model: EvaluatedModel,
    images: Images,
    how: Extraction,
    *,
    only: np.ndarray | None = None,
    views: MultiView | None = None,
    seed: int = 0,
    wanted: np.ndarray | None = None,
) -> Features:
    """The features of all images, or of those at `only` (n,), in every process, the same for any number of them.

    Where some are `wanted` (N,) bool, of all that are looked at, those that can be read have a row, and no other. With
    `views`, those of V views of each image, drawn by `seed`, stand side by side, (N, V D), not the middle crop's.
    Raises CacheError where they cannot be kept, and TooManyUnreadableError.
    """
    check_precision(how.precision, model.device)
    transform: Transform = views or model.crop
    chosen = np.arange(len(images)) if only is None else only.astype(np.int64)
    network, seed = (SideBySide(model.network), seed) if views else (model.network, 0)
    extractor = Extractor(network, Batches(images, transform, seed), model.device, how)
    known_by = identity(model, images, how, transform, None if only is None else chosen, seed)
    store = Store(how.cache, known_by, images, chosen)
    unreadable = Unreadable(len(chosen), how.unreadable_share)
    rows = FeatureRows(images, chosen, wanted)
    blocks = [chosen[start : start + BLOCK] for start in range(0, len(chosen), BLOCK)]
    missing = store.missing(len(blocks))
    made = extractor.blocks([blocks[number] for number in missing])
    for number, indices in enumerate(blocks):
        block = None if number in missing else store.read(number, indices, model.device)
        if block is None:
            block = next(made if number in missing else extractor.blocks([indices]))
            check_finite(block, model, how)
            store.write(number, block)
        unreadable.add(block[1])
        rows.add(block)
    if store.found:
        say(f"{model.name}: the features of {images.fingerprint[:8]} were in {how.cache}")
    return Features(rows.finished(), rows.readable, tuple(sorted(unreadable.reasons)))


def check_finite(block: Block, model: EvaluatedModel, how: Extraction) -> None:
    """Raise FeaturesNotFiniteError for features (n, D) that are NaN or infinite."""
    if not block[0].isfinite().all():
        raise FeaturesNotFiniteError(
            f"features of {model.name} in {how.precision} are not finite: where its training went "
            "well (its log tells), take --precision fp32"
        )


def identity(
    model: EvaluatedModel, images: Images, how: Extraction, transform: Transform, only: np.ndarray | None, seed: int = 0
) -> dict[str, Any]:
    """All that features depend on, as the header of their files has it."""
    return {
        **model.identity,
        "images": images.fingerprint,
        "only": None if only is None else hashlib.sha256(only.astype("<i8").tobytes()).hexdigest(),
        "transform": repr(transform),
        "precision": how.precision,
        "seed": seed,
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

    def blocks(self, blocks: Sequence[np.ndarray]) -> Iterator[Block]:
        """Yield the features of the images of each block (n,), in every process."""
        dtype = DTYPES.get(self.how.precision)
        made = embed_each(
            self.network,
            self.dataset,
            [self.padded(indices) for indices in blocks],
            self.device,
            batch_size=self.how.batch_size,
            workers=self.how.workers,
            autocast=torch.autocast(self.device.type, dtype) if dtype else ExactConvolutions(),
        )
        for indices, (rows, mine) in zip(blocks, made, strict=True):
            unreadable = {key: reason for part in gather_objects(mine) for key, reason in part.items()}
            yield rows[: len(indices)].contiguous(), unreadable

    def padded(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices` (n,), repeated until they are whole batches of every process."""
        whole = min(self.how.batch_size, len(indices)) * world_size()
        return np.resize(indices, -(-len(indices) // whole) * whole)
