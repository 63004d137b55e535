"""The keys of past batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class Queue(nn.Module):
    """The last `size` keys, unit vectors of `dim` numbers, oldest overwritten first. He et al., 2020, section 3.2.

    Every process holds all of it and enqueues the same keys. Nothing here waits for the device.
    """

    keys: Tensor
    """(size, dim)"""
    pointer: Tensor
    """Where the next key goes."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"a queue holds at least one key, not queue_size={size}")
        self.register_buffer("keys", normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.offered: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.keys)

    def offer(self, keys: Tensor) -> None:
        """Hold keys (B, dim) back until `commit`: the losses of a step all see the queue as the step began."""
        self.offered.append(keys.detach())

    @torch.no_grad()
    def commit(self) -> None:
        """Take in what was offered, wrapping around; of more keys than fit, the last stay."""
        if not self.offered:
            return
        keys = normalize(torch.cat(self.offered), dim=1)[-len(self) :].to(self.keys.dtype)
        self.offered.clear()
        places = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self)
        self.keys.index_copy_(0, places, keys)
        self.pointer.add_(len(keys)).remainder_(len(self))
