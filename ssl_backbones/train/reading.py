"""A single batch read by several processes, each a part of it."""

from __future__ import annotations

import numpy as np

from ssl_backbones.data.batches import Batch, BatchDataset
from ssl_backbones.data.parts import Request, joined, part_of
from ssl_backbones.train.loader import read_each

LEAST = 32
"""Images of a part: fewer are read before a process has started."""


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
