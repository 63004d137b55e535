"""The backbone's features of many images, shared out among the processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_backbones.data.batches import Batch, BatchDataset
from ssl_backbones.data.parts import Request
from ssl_backbones.data.placement import to_device
from ssl_backbones.distributed import doing, gather, share_first, sum_over_processes, world_size
from ssl_backbones.host_memory import HostArray
from ssl_backbones.models.backbone import modes_kept
from ssl_backbones.shares import own_places, own_share
from ssl_backbones.train.loader import read_each

AT_ONCE = 256
"""Images whose features are made at once."""
GATHERED = 2**12
"""Rows of each process that are gathered at once."""
TOGETHER = 64
"""Batches after which processes wait for one another, so that none is taken for dead at the end of many."""


def embed(
    backbone: nn.Module,
    dataset: BatchDataset,
    indices: np.ndarray,
    device: torch.device,
    *,
    batch_size: int = AT_ONCE,
    workers: int = 0,
    autocast: AbstractContextManager[Any] | None = None,
    shared_out: bool = False,
) -> tuple[Tensor, Mapping[str, str]]:
    """The features (N, D) of the images at `indices`, on the CPU in single precision, and what could not be read.

    Every process gets all of them, in memory that those of a machine share; where they are shared out, those at its
    `own_places` alone. The backbone is in eval mode meanwhile, with the batch statistics of the first process, which
    are those that get published; afterwards it is as it was.
    """
    (found,) = embed_each(
        backbone,
        dataset,
        [indices],
        device,
        batch_size=batch_size,
        workers=workers,
        autocast=autocast,
        shared_out=shared_out,
    )
    return found


@torch.no_grad()
def embed_each(
    backbone: nn.Module,
    dataset: BatchDataset,
    parts: Sequence[np.ndarray],
    device: torch.device,
    *,
    batch_size: int = AT_ONCE,
    workers: int = 0,
    autocast: AbstractContextManager[Any] | None = None,
    shared_out: bool = False,
) -> Iterator[tuple[Tensor, Mapping[str, str]]]:
    """Yield for each part of many images (n,) what `embed` gives: features (n, D), and what could not be read.

    Images of the next part are read while those of one are looked at.
    """
    shares = [own_share(torch.tensor(part)).numpy() for part in parts]
    whole, done = sum(map(len, shares)), 0

    def told() -> str:
        return f"Embedding images: {done} of {whole}"

    read = read_each(dataset, [one for mine in shares for one in requests(mine, batch_size)], workers)
    with doing(told):
        for part, mine in zip(parts, shares, strict=True):
            features, filled = torch.empty(0), 0
            unreadable: dict[str, str] = {}
            with evaluated(backbone), autocast or nullcontext():
                for number, batch in enumerate(islice(read, -(-len(mine) // batch_size)), start=1):
                    unreadable |= batch.unreadable
                    found = backbone(dataset.on_device(to_device(batch.content, device))).float()
                    features = features if filled else torch.empty(len(mine), *found.shape[1:])
                    features[filled : filled + len(found)] = found
                    filled, done = filled + len(found), done + len(found)
                    if number % TOGETHER == 0:
                        sum_over_processes(torch.zeros(1, device=device))
            own = features[: len(own_places(len(part)))] if shared_out else everyones(features, device)[: len(part)]
            yield own, unreadable


def everyones(mine: Tensor, device: torch.device) -> Tensor:
    """The features (B, D) of all processes in rank order, (world * B, D), on the CPU, once for those of a machine.

    A device holds a few of them.
    """
    if world_size() == 1:
        return mine
    found = HostArray((world_size() * len(mine), *mine.shape[1:]))
    for start in range(0, len(mine), GATHERED):
        everyone = gather(mine[start : start + GATHERED].to(device)).chunk(world_size())
        for place, rows in enumerate(everyone if found.fills else ()):
            found.write(place * len(mine) + start, rows.cpu().numpy())
    return torch.from_numpy(found.finished())


@contextmanager
def evaluated(backbone: nn.Module) -> Iterator[None]:
    """The backbone in eval mode with the first process's buffers for a while; every part of it is put back."""
    buffers = list(backbone.buffers()) if world_size() > 1 else []
    own = [buffer.clone() for buffer in buffers]
    for buffer in buffers:
        share_first(buffer)
    with modes_kept(backbone):
        backbone.eval()
        try:
            yield
        finally:
            for buffer, kept in zip(buffers, own, strict=True):
                buffer.copy_(kept)


def batches(dataset: BatchDataset, indices: np.ndarray, batch_size: int, workers: int) -> Iterator[Batch]:
    """The images at `indices` in order, untouched by chance."""
    return read_each(dataset, requests(indices, batch_size), workers)


def requests(indices: np.ndarray, batch_size: int) -> list[Request]:
    """The batches to ask for: the images at `indices` (n,), in order."""
    return [Request(0, indices[start : start + batch_size]) for start in range(0, len(indices), batch_size)]
