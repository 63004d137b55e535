"""The steps of one epoch of a loader."""

from __future__ import annotations

from collections.abc import Iterator

from ssl_backbones.data.batches import Batch
from ssl_backbones.train.loader import Loader


def epoch_of(loader: Loader, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
    """The steps of an epoch from its step `start` on."""
    first = epoch * loader.steps_per_epoch
    return loader.steps(first + start, first + loader.steps_per_epoch)
