"""Alignments of two views of an image, held against the objects in them."""

from __future__ import annotations

import torch
from torch import Tensor


def on_same_object(first: Tensor, second: Tensor, objects: Tensor, other: Tensor) -> Tensor:
    """The share (B,) of what an alignment puts on an object in one view that it puts on the same object in the other.

    An alignment is N pairs of weights over positions, (B, N, P) in the one view and (B, N, Q) in the other, each of
    which sums to one: a point and its match, a point and a map, or two maps. Objects (B, K, P) and (B, K, Q) are the
    share of each position that each of K objects has. Of the objects that both views show:
    sum_nk a_nk b_nk / sum_nk a_nk, a and b being the weights that fall on them; NaN where there is no such object.
    """
    shown = (objects.sum(2) > 0) & (other.sum(2) > 0)
    here, there = first @ objects.mT * shown[:, None], second @ other.mT
    total = here.sum((1, 2))
    return torch.where(total > 0, (here * there).sum((1, 2)) / total.clamp(min=1e-12), torch.nan)
