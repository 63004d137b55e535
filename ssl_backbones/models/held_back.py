"""Tensors that the forward passes of a step leave for its end."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HeldBack(nn.Module):
    """Tensors that forward passes hold until the optimiser has made the step: no state, for a checkpoint has none.

    A forward that is compiled is compiled anew for each length of a list that it meets. `set_aside` between the parts
    of a batch therefore leaves each of them an empty one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.of_this_part: list[tuple[Tensor, ...]] = []
        self.of_earlier_parts: list[tuple[Tensor, ...]] = []

    def hold(self, *columns: Tensor) -> None:
        """Hold rows (B, ...) of one or more tensors, as many and of the same kinds each time."""
        self.of_this_part.append(columns)

    def set_aside(self) -> None:
        """Make way for the next part of the batch."""
        self.of_earlier_parts += self.of_this_part
        self.of_this_part.clear()

    def take(self) -> tuple[Tensor, ...]:
        """All rows (N, ...) of each tensor in their order, which are held no more; empty where there are none."""
        self.set_aside()
        parts, self.of_earlier_parts = self.of_earlier_parts, []
        return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))
