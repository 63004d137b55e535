"""Networks without weights: made for their names, shapes and descriptions alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

DRAWING = (Tensor.normal_, Tensor.uniform_)


class Undrawn(TorchFunctionMode):
    """Leaves tensors as they are where numbers would be drawn for them."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in DRAWING or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else given["tensor"]
        return func(*args, **given)


@contextmanager
def weightless() -> Iterator[None]:
    """Context manager: make networks without memory for their weights, and draw no numbers for them."""
    with torch.device("meta"), Undrawn():
        yield
