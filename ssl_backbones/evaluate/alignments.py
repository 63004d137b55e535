"""The ways in which methods align two views: each gives weights over positions of both, on a CPU.

All take maps (B, C, h, w) of both views and, for the one that uses them, the views' corners (2, B, 4) in the image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_backbones.losses import correspondence, place_distances

SHARPNESS = 2.0
"""PixPro's gamma."""
Aligned = tuple[Tensor, Tensor]
"""Weights over positions of two views, (B, N, P) and (B, N, Q), that sum to one."""


def matched(first: Tensor, second: Tensor, corners: Tensor) -> Aligned:
    """DenseCL's correspondence of maps (B, C, h, w): a point, and the point whose features are most like its."""
    one, other = positions(first), positions(second)
    return points(one), chosen(correspondence(one, other))


def mixed(first: Tensor, second: Tensor, corners: Tensor) -> Aligned:
    """PixPro's map from view to view, of maps (B, C, h, w): a point, and all points by how alike they are."""
    one, other = (normalize(positions(maps), dim=2) for maps in (first, second))
    alike = (one @ other.mT).relu().pow(SHARPNESS) + 1e-12
    return points(one), alike / alike.sum(2, keepdim=True)


def mapped(first: Tensor, second: Tensor, corners: Tensor) -> Aligned:
    """LEWEL's alignment maps (B, n, h, w): a map, and the same one in the other view."""
    return first.flatten(2), second.flatten(2)


def nearest(first: Tensor, second: Tensor, corners: Tensor) -> Aligned:
    """A point of maps (B, C, h, w), and the point that is nearest in the image, by the views' corners (2, B, 4)."""
    return points(positions(first)), chosen(place_distances(corners[0], corners[1], grid_of(first)).argmin(2))


def positions(maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) as rows (B, P, C)."""
    return maps.flatten(2).mT


def points(rows: Tensor) -> Tensor:
    """Each of the positions (B, P, C) for itself, (B, P, P)."""
    return torch.eye(rows.shape[1]).expand(len(rows), -1, -1)


def chosen(places: Tensor) -> Tensor:
    """All weight on one of P positions for each of them, (B, P, P), given these (B, P)."""
    return torch.zeros(*places.shape, places.shape[1]).scatter_(2, places[..., None], 1.0)


def grid_of(maps: Tensor) -> tuple[int, int]:
    """Positions of maps (B, C, h, w), down and across."""
    return maps.shape[2], maps.shape[3]
