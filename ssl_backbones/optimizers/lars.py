"""Layer-wise adaptive rate scaling. You et al., 2017. https://arxiv.org/abs/1708.03888"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Trust = Literal["sum", "update"]
"""The denominator of the trust ratio: |g| + wd |w| (You et al., LEWEL, timm), or |g + wd w| (BYOL, Barlow Twins)."""


class LARS(torch.optim.Optimizer):
    """SGD whose step on each tensor w is proportional to |w|; the momentum gathers steps, learning rate included.

        step = lr * trust * (g + wd * w)        trust = eta * |w| / (|g| + wd * |w|)        or / |g + wd * w|
        buffer = momentum * buffer + step       w = w - buffer

    trust is 1 where |w| or what divides it is 0. In a group with `adapt=False` (biases, normalisation) step = lr * g,
    without decay. Computed in foreach calls over a group; nothing is read back from the device.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
        trust: Trust = "sum",
        adapt: bool = True,
    ) -> None:
        """Raise ValueError for a setting out of range."""
        for name, value in {"lr": lr, "weight_decay": weight_decay}.items():
            if not value >= 0:
                raise ValueError(f"{name} is {value!r} where LARS expects a number of at least 0.")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum!r} where LARS expects a number in [0, 1), such as 0.9.")
        if not trust_coefficient > 0:
            raise ValueError(f"trust_coefficient is {trust_coefficient!r} where LARS expects a number above 0.")
        if trust not in get_args(Trust):
            raise ValueError(f"trust is {trust!r} where LARS expects one of {', '.join(map(repr, get_args(Trust)))}.")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "trust": trust,
            "adapt": adapt,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient; the closure's loss, where one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self.move(weights, group)
        return loss

    def move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Make one step of some weights (...) of a group."""
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        if group["adapt"]:
            steps = adapted(weights, gradients, group["weight_decay"], group["trust_coefficient"], group["trust"])
            torch._foreach_mul_(steps, group["lr"])
        else:
            steps = list(torch._foreach_mul(gradients, group["lr"]))
        buffers = [self.buffer(weight) for weight in weights]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, steps)
        torch._foreach_sub_(weights, buffers)

    def buffer(self, weight: Tensor) -> Tensor:
        """The sum of past steps of a weight, (...) as it is."""
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def adapted(
    weights: list[Tensor], gradients: list[Tensor], weight_decay: float, trust_coefficient: float, trust: Trust
) -> list[Tensor]:
    """trust * (g + wd * w) for each weight and its gradient."""
    updates = list(torch._foreach_add(gradients, weights, alpha=weight_decay))
    sizes = torch.stack(torch._foreach_norm(weights))  # (P,) for P weights
    if trust == "sum":
        against = torch.stack(torch._foreach_norm(gradients)) + weight_decay * sizes
    else:
        against = torch.stack(torch._foreach_norm(updates))
    known = (sizes > 0) & (against > 0)
    ratios = torch.where(known, trust_coefficient * sizes / torch.where(known, against, 1.0), 1.0)
    torch._foreach_mul_(updates, list(ratios.unbind()))
    return updates
