"""Losses part by part: of tables too large to be held at once, a few rows are, and again for the gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ssl_backbones.products import exact_products

AT_ONCE = 2**26
"""Numbers of such a table that are held at once."""


def rows_at_once(width: int) -> int:
    """The number of rows of so many numbers that are held at once, at least one."""
    return max(1, AT_ONCE // width)


def in_parts(work: Callable[..., Tensor], rows: Sequence[Tensor], at_once: int) -> list[Tensor]:
    """The results of work on tensors (B, ...) in parts of so many rows, each computed again where the gradient is.

    Then too products are exact. Of no more rows than that, the work is done once and all that it makes is kept.
    """

    def exactly(*part: Tensor) -> Tensor:
        with exact_products():
            return work(*part)

    if len(rows[0]) <= at_once:
        return [exactly(*rows)]
    parts: Any = zip(*(each.split(at_once) for each in rows), strict=True)
    return [checkpoint(exactly, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
