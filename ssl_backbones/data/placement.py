"""Batches brought to a device and to a memory layout, whatever they are nested in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)
Layout = Literal["contiguous", "channels_last"]
MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def to_device(content: Any, device: torch.device) -> Any:
    """The same nested content with every tensor on the device."""
    return mapped(lambda tensor: tensor.to(device, non_blocking=True), content)


def in_layout(content: Any, layout: Layout) -> Any:
    """The same nested content with every image tensor (B, C, H, W) in the layout."""
    form = MEMORY_FORMATS[layout]
    return mapped(lambda tensor: tensor.contiguous(memory_format=form) if tensor.ndim == 4 else tensor, content)


def laid_out(network: N, layout: Layout) -> N:
    """The network itself with every weight (O, I, H, W) in the layout."""
    network.to(memory_format=MEMORY_FORMATS[layout])  # type: ignore[call-overload]
    return network


def mapped(move: Callable[[Tensor], Tensor], content: Any) -> Any:
    """The same nesting of dicts, lists and (named) tuples with every tensor moved; all else as it is."""
    if isinstance(content, Tensor):
        return move(content)
    if isinstance(content, dict):
        return {name: mapped(move, value) for name, value in content.items()}
    if isinstance(content, tuple) and hasattr(content, "_fields"):
        return type(content)(*(mapped(move, value) for value in content))
    if isinstance(content, list | tuple):
        return type(content)(mapped(move, value) for value in content)
    return content
