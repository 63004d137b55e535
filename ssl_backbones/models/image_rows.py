"""Buffers with a row for each image of the data: without rows until the data are known, or a state is loaded."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn


def rows_from_state(module: nn.Module, name: str) -> None:
    """Let the buffer of this name, while it has no rows, take as many as a state has that is loaded."""
    module.register_load_state_dict_pre_hook(partial(_make_room, name))


def _make_room(name: str, module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Make room for the rows (N, ...) that a state has of a buffer."""
    own, given = getattr(module, name), state.get(prefix + name)
    if isinstance(given, Tensor) and not len(own):
        setattr(module, name, own.new_empty(given.shape))


def require_rows(rows: Tensor) -> None:
    """Raise ValueError for a buffer (N, ...) without rows."""
    if not len(rows):
        raise ValueError(
            "this method keeps something of every image, and knows of none yet: make the batches by "
            "method.dataset(images, size, seed) before the first step"
        )
