"""The keys of past batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class Queue(nn.Module):
    """The last `size` keys, unit vectors of `dim` numbers, oldest overwritten first. He et al., 2020, section 3.2.

    Every process holds all of it and enqueues the same keys. Nothing here waits for the device. A `numbered` queue
    also keeps what each key is of.
    """

    keys: Tensor
    """(size, dim)"""
    pointer: Tensor
    """Where the next key goes."""
    numbers: Tensor | None
    """(size,): the image or the class of each key, -1 before there is one; None where none are kept."""

    def __init__(self, size: int, dim: int, numbered: bool = False) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"a queue holds at least one key, not queue_size={size}")
        self.register_buffer("keys", normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.register_buffer("numbers", torch.full((size,), -1) if numbered else None)
        self.offered: list[Tensor] = []
        self.offered_numbers: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.keys)

    def offer(self, keys: Tensor, numbers: Tensor | None = None) -> None:
        """Hold keys (B, dim) back until `commit`: the losses of a step all see the queue as the step began.

        A numbered queue asks for their numbers (B,) as well. In evaluation mode nothing is held: nobody will commit it.
        """
        if not self.training:
            return
        self.offered.append(keys.detach())
        if numbers is not None:
            self.offered_numbers.append(numbers)

    @torch.no_grad()
    def commit(self) -> None:
        """Take in what was offered, wrapping around; of more keys than fit, the last stay."""
        if not self.offered:
            return
        keys = normalize(torch.cat(self.offered), dim=1)[-len(self) :].to(self.keys.dtype)
        self.offered.clear()
        places = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self)
        self.keys.index_copy_(0, places, keys)
        if self.numbers is not None:
            self.numbers.index_copy_(0, places, torch.cat(self.offered_numbers)[-len(self) :])
            self.offered_numbers.clear()
        self.pointer.add_(len(keys)).remainder_(len(self))
