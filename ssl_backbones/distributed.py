"""What one process needs to know of the others; alone, every function is the identity."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is."""
    return dist.get_rank() if world_size() > 1 else 0


@torch.no_grad()
def gather(rows: Tensor) -> Tensor:
    """The rows (B, ...) of all processes in rank order, (world * B, ...), without gradient."""
    if world_size() == 1:
        return rows.detach()
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


@torch.no_grad()
def same_permutation(size: int, device: torch.device) -> Tensor:
    """A random order of `size` rows, the same in every process: the one that rank 0 drew."""
    order = torch.randperm(size).to(device)
    if world_size() > 1:
        dist.broadcast(order, src=0)
    return order


class AllReduceSum(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, part: Tensor) -> Tensor:
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.clone()
        dist.all_reduce(total)
        return total
