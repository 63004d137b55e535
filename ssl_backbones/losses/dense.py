"""Losses between positions of two views' feature maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from ssl_backbones.losses.contrastive import info_nce
from ssl_backbones.losses.precision import in_single_precision

AT_ONCE = 2**26
"""Logits that are held at once; more are computed part by part, and again for the gradient."""


@torch.no_grad()
@in_single_precision
def correspondence(features: Tensor, other: Tensor) -> Tensor:
    """The position (B, P) of the other view's features (B, Q, C) that has the largest cosine with each of (B, P, C).

    DenseCL (Wang et al., 2021), eq. 4.
    """
    return (normalize(features, dim=-1) @ normalize(other, dim=-1).mT).argmax(2)


@in_single_precision
def dense_info_nce(queries: Tensor, keys: Tensor, matches: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE of the positions' queries (B, P, D), mean over B * P, each against the key at its match and negatives.

    DenseCL (Wang et al., 2021), eq. 2: keys are (B, Q, D), matches (B, P) among their Q positions, and negatives (K, D)
    unit vectors, as a queue holds them.
    """
    positives = keys.gather(1, matches[..., None].expand(-1, -1, keys.shape[2])).flatten(0, 1)
    rows, count = queries.flatten(0, 1), max(1, AT_ONCE // len(negatives))
    if len(rows) <= count:
        return info_nce(rows, positives, negatives, temperature)
    parts = zip(rows.split(count), positives.split(count), strict=True)
    sums = [checkpoint(info_nce, *part, negatives, temperature, use_reentrant=False) * len(part[0]) for part in parts]
    return torch.stack(sums).sum() / len(rows)
