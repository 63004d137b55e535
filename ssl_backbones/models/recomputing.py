"""Activations computed anew in the backward pass instead of kept: memory for a third more time.

Chen et al., 2016. Training deep nets with sublinear memory cost. https://arxiv.org/abs/1604.06174
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class MovedOnce:
    """Hooks of a BatchNorm by which a second pass, the one within the backward pass, moves no running statistics."""

    def __init__(self) -> None:
        self.before: list[Tensor] = []

    def remember(self, norm: nn.Module, inputs: Any) -> None:
        """Keep the statistics of a pass within the backward pass."""
        if torch._C._current_graph_task_id() >= 0:  # as torch's own checkpointing tells that gradients are computed
            self.before = [buffer.clone() for buffer in norm.buffers()]

    def put_back(self, norm: nn.Module, inputs: Any, output: Any) -> None:
        """Put back what was kept."""
        for buffer, before in zip(norm.buffers(), self.before, strict=False):
            buffer.copy_(before)
        self.before = []


def recompute_activations(backbone: nn.Module) -> None:
    """Let a backbone of timm's keep the inputs of its blocks alone, and compute the rest anew for the gradients.

    The same numbers come out: a second pass moves no statistics of BatchNorm. ValueError for a network that cannot.
    """
    enable = getattr(backbone, "set_grad_checkpointing", None)
    if enable is None:
        raise ValueError(
            f"a {type(backbone).__name__} cannot compute its activations anew: leave out grad_checkpointing"
        )
    enable(True)
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            hooks = MovedOnce()
            module.register_forward_pre_hook(hooks.remember)
            module.register_forward_hook(hooks.put_back, always_call=True)
