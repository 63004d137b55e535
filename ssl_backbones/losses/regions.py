"""Losses between regions of two views that show the same part of an image. Xiao et al., 2021."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from ssl_backbones.losses.parts import in_parts, rows_at_once
from ssl_backbones.losses.precision import in_single_precision

EDGE = 1e-4
"""The share of a view's side by which a window may stick out of it: what rounding makes of equal views."""


def sliding_windows(size: int, stride: int, high: int, wide: int, device: torch.device | None = None) -> Tensor:
    """Windows of size x size positions on a map of high x wide, x0, y0, x1, y1 (R, 4) as shares of its sides, by rows.

    The last ends before the last position, as in ReSim's code.
    """
    down, across = (torch.arange(0, max(0, count - size), stride, device=device) / count for count in (high, wide))
    top, left = (part.flatten() for part in torch.meshgrid(down, across, indexing="ij"))
    return torch.stack([left, top, left + size / wide, top + size / high], 1)


@torch.no_grad()
def seen_in_the_other(windows: Tensor, boxes: Tensor, flips: Tensor) -> tuple[Tensor, Tensor]:
    """Windows (R, 4) of the first view, in the second: x0, y0, x1, y1 (B, R, 4), and which are whole in it (B, R).

    All as shares of a view's sides; boxes (2, B, 4) are left, top, width and height of the views in the image, flips
    (2, B) whether they are mirrored.
    """
    (first, second), (mirrored, mirrored_too) = boxes.to(windows.dtype)[:, :, None], flips[:, :, None]
    x, y = windows[:, 0::2], windows[:, 1::2]  # (R, 2)
    x = torch.where(mirrored[..., None], 1 - x, x) * first[..., 2:3] + first[..., 0:1]  # (B, R, 2), in the image
    y = y * first[..., 3:4] + first[..., 1:2]
    x, y = (x - second[..., 0:1]) / second[..., 2:3], (y - second[..., 1:2]) / second[..., 3:4]
    x = torch.where(mirrored_too[..., None], 1 - x, x)
    found = torch.stack([x.amin(2), y.amin(2), x.amax(2), y.amax(2)], 2)
    return found, ((found >= -EDGE) & (found <= 1 + EDGE)).all(2)


@in_single_precision
def region_means(maps: Tensor, regions: Tensor) -> Tensor:
    """The means (B, R, D) of maps (B, D, h, w) over regions x0, y0, x1, y1 (R, 4) or (B, R, 4), shares of the sides.

    Precise pooling of regions (Jiang et al., 2018): the integral over a region of the map, which is linear between its
    positions; these lie in the middle of their cells here, and their weights are made to sum to 1.
    """
    high, wide = maps.shape[2:]
    across, down = weights_of(regions[..., 0::2] * wide, wide), weights_of(regions[..., 1::2] * high, high)
    weights = (down[..., :, None] * across[..., None, :]).flatten(-2)  # (R, P) or (B, R, P)
    return weights.to(maps.dtype) @ maps.flatten(2).mT


def weights_of(spans: Tensor, count: int) -> Tensor:
    """The weight (..., count) of each position of a row in the mean over spans (..., 2), in positions; their sum is 1.

    A position's influence falls to 0 in a straight line at its neighbours; of a span outside of the row all are 0.
    """
    middles = torch.arange(count, device=spans.device, dtype=spans.dtype) + 0.5
    away = (spans[..., None] - middles).clamp(-1, 1)  # (..., 2, count)
    risen = away - away * away.abs() / 2  # the integral of a position's influence up to there
    inside = risen[..., 1, :] - risen[..., 0, :]
    return inside / inside.sum(-1, keepdim=True).clamp(min=1e-12)


@in_single_precision
def all_windows(maps: Tensor, size: int) -> Tensor:
    """The means of every size x size positions of maps (B, D, h, w), as unit vectors (N, D)."""
    return normalize(avg_pool2d(maps, size, stride=1).flatten(2).mT.flatten(0, 1), dim=1)


@in_single_precision
def region_info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, counted: Tensor, temperature: float) -> Tensor:
    """InfoNCE of regions' queries (B, R, D), each against its key (B, R, D) and the negatives (K, D): their sum.

    ReSim (Xiao et al., 2021): regions that are not counted (B, R) add nothing. Queries and keys may be of any length,
    negatives are unit vectors.
    """

    def summed(q: Tensor, k: Tensor, valid: Tensor) -> Tensor:
        q, k = normalize(q, dim=1), normalize(k, dim=1)
        positive = (q * k).sum(1) / temperature
        all_negatives = (q @ negatives.T).div_(temperature).logsumexp(1)
        return ((torch.logaddexp(positive, all_negatives) - positive) * valid).sum()

    rows = queries.flatten(0, 1), keys.flatten(0, 1), counted.flatten()
    return torch.stack(in_parts(summed, rows, rows_at_once(len(negatives)))).sum()
