"""Batches read by processes beside this one: many in a row, or a single one in parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader

from ssl_backbones.data.batches import Batch, BatchDataset
from ssl_backbones.data.parts import Request, joined, part_of
from ssl_backbones.train.loader import obey_parent_alone, signals_waiting
from ssl_backbones.train.shared_arrays import arrays_shared

LEAST = 32
"""Images of a part: fewer are read before a process has started."""


def read_each(dataset: BatchDataset, requests: Sequence[Request], workers: int) -> Iterator[Batch]:
    """The batches asked for, in order, made by so many processes; by this one for 0."""
    data_loader: DataLoader[Batch] = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size=None,
        sampler=requests,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=keep,  # type: ignore[arg-type]
        worker_init_fn=obey_parent_alone,
        generator=torch.Generator().manual_seed(0),  # or it would draw from the global one
    )
    with signals_waiting(), arrays_shared():
        return iter(data_loader)


def keep(batch: Batch) -> Batch:
    """The batch as it is."""
    return batch


def read_in_parts(dataset: BatchDataset, request: Request, workers: int) -> Batch:
    """The batch asked for, each part of it made by a process of its own where it is large; the same to the last bit."""
    parts = parts_for(len(request.indices), workers)
    if parts < 2:
        return dataset[request]
    requests = [part_of(request, at) for at in np.array_split(np.arange(len(request.indices)), parts)]
    made = list(read_each(dataset, requests, parts))
    content = joined([batch.content for batch in made], [len(one.indices) for one in requests])
    return Batch(content, {key: reason for batch in made for key, reason in batch.unreadable.items()})


def parts_for(images: int, workers: int) -> int:
    """The processes that make a batch of so many images, each a part of it; fewer than 2 where it is made here."""
    return min(workers, images // LEAST)
