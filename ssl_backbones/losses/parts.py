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
    """Apply `work` to tensors (B, ...) in parts of `at_once` rows; each part is recomputed for its gradient.

    Matrix products are exact in both passes. With at most `at_once` rows nothing is divided or recomputed.
    """

    def exactly(*part: Tensor) -> Tensor:
        with exact_products():
            return work(*part)

    if len(rows[0]) <= at_once:
        return [exactly(*rows)]
    parts: Any = zip(*(each.split(at_once) for each in rows), strict=True)
    return [checkpoint(exactly, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
