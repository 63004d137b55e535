"""Rows that the processes of a run share out: each has an equal number in the order of ranks, the last ones fewer."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_backbones.distributed import gather, rank, world_size


def size_of_share(count: int) -> int:
    """The number of rows of a process's share of so many, the last ones excepted."""
    return -(-count // world_size())


def own_places(count: int) -> range:
    """The places of this process's rows among so many; none, where the processes before have them all."""
    size = size_of_share(count)
    return range(min(count, rank() * size), min(count, (rank() + 1) * size))


def own_share(rows: Tensor) -> Tensor:
    """This process's share (S, ...) of rows (N, ...), as large as every other's; the last is filled up from the first.

    `gather` of all shares, cut to N, is the rows again.
    """
    size = size_of_share(len(rows))
    at = torch.arange(rank() * size, (rank() + 1) * size, device=rows.device)
    return rows if world_size() == 1 else rows[at % len(rows)]


def rows_at(rows: Tensor, places: Tensor) -> Tensor:
    """The rows (n, ...) at some places (n,) among rows (N, ...); the rows themselves where that is all, in order."""
    count = len(rows)
    if len(places) == count and torch.equal(places, torch.arange(count, device=places.device)):
        return rows
    return rows[places.to(rows.device)]


def all_shares(own: Tensor, count: int) -> Tensor:
    """The rows (count, ...) of all processes, each of which has those at its `own_places` (S, ...)."""
    filled = own.new_zeros(size_of_share(count), *own.shape[1:])
    filled[: len(own)] = own
    return gather(filled)[:count]
