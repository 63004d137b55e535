"""The slow copy of a network that gives the targets."""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

TargetBN = Literal["ema", "sync", "plain"]
"""Batch statistics of a target: averaged ones, or its own, of the whole batch or of its process's part."""


class EMA(nn.Module):
    """An exponential moving average of named modules, without gradient: `EMA(False, backbone=..., head=...).backbone`.

    If `averaged`, its BatchNorms average the online ones' running statistics and normalise with them (EMAN: Cai et al.,
    2021); else they keep statistics of their own and normalise with those of the batch (BYOL, MoCo).
    """

    def __init__(self, averaged: bool, **online: nn.Module) -> None:
        super().__init__()
        self.averaged = averaged
        for name, module in online.items():
            self.add_module(name, copy.deepcopy(module).requires_grad_(False))
        self.train(self.training)

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name)

    def train(self, mode: bool = True) -> EMA:
        """Follow the method's mode, except that averaged statistics are always used as they stand."""
        return super().train(mode and not self.averaged)

    @torch.no_grad()
    def update(self, momentum: float, **online: nn.Module) -> None:
        """Move to momentum * self + (1 - momentum) * online."""
        mine: list[Tensor] = []
        theirs: list[Tensor] = []
        counts: list[tuple[Tensor, Tensor]] = []
        for name, module in online.items():
            mine += self.get_submodule(name).parameters()
            theirs += module.parameters()
            if self.averaged:
                for old, new in zip(self.get_submodule(name).buffers(), module.buffers(), strict=True):
                    if old.is_floating_point():
                        mine.append(old)
                        theirs.append(new)
                    else:
                        counts.append((old, new))
        if counts:
            torch._foreach_copy_([old for old, _ in counts], [new for _, new in counts])
        torch._foreach_lerp_(mine, theirs, 1 - momentum)
