"""Losses do not follow a network into half precision."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

import torch
from torch import Tensor

from ssl_backbones.products import exact_products

Given = ParamSpec("Given")


def in_single_precision(loss: Callable[Given, Tensor]) -> Callable[Given, Tensor]:
    """The loss with its tensors in single precision at least, and without autocast or TF32.

    bfloat16 knows three digits: cosines near one and logits over a temperature need more. That is its forward pass:
    the products of its gradient follow the network's, on a GPU in TF32 where those may be.
    """

    @functools.wraps(loss)
    def wrapped(*values: Given.args, **named: Given.kwargs) -> Tensor:
        device = next(value.device for value in (*values, *named.values()) if isinstance(value, Tensor))
        with torch.autocast(device.type, enabled=False), exact_products():
            wide: Any = loss
            return wide(*map(widened, values), **{name: widened(value) for name, value in named.items()})  # type: ignore[no-any-return]

    return wrapped


def widened(value: Any) -> Any:
    """A tensor of half precision in single precision; anything else as it is."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.promote_types(value.dtype, torch.float32))
    return value
