"""Requests for batches, and batches that are made in parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Exchange:
    """ShuffleBN: the images whose keys this process makes. Over all ranks, a permutation of the global batch."""

    indices: np.ndarray
    """(B,): these images."""
    places: np.ndarray
    """(G,): the place of each image of the global batch among those of all processes in rank order."""


@dataclass(frozen=True)
class Request:
    """A sampler's request to a worker: the images of one batch, in one epoch."""

    epoch: int
    indices: np.ndarray
    """(B,): the numbers of the images."""
    exchange: Exchange | None = None
    """The images of another share of the global batch, for views that are not of the process's own."""
    soon: np.ndarray | None = None
    """(S,): the shards that all processes read now and next, where images lie in shards."""


def part_of(request: Request, at: np.ndarray) -> Request:
    """The request for the images at some places of a batch."""
    exchange = request.exchange
    own = None if exchange is None else Exchange(exchange.indices[at], exchange.places)
    return replace(request, indices=request.indices[at], exchange=own)


def joined(contents: Sequence[Any], counts: Sequence[int]) -> Any:
    """The content of a batch whose parts hold so many images: rows one after the other, and once what all share."""
    first = contents[0]
    if isinstance(first, Tensor):
        of_images = all(len(part) == count for part, count in zip(contents, counts, strict=True))
        return torch.cat(list(contents)) if of_images else first
    if isinstance(first, dict):
        return {name: joined([part[name] for part in contents], counts) for name in first}
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(joined(same, counts) for same in zip(*contents, strict=True)))
    if isinstance(first, list | tuple):
        return type(first)(joined(same, counts) for same in zip(*contents, strict=True))
    if not isinstance(first, int | float | str | None):
        raise TypeError(f"a batch holds {type(first).__name__}, whose parts cannot be joined: make it of tensors")
    return first
