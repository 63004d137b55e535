"""Similarity maps: the places of an image that resemble another image, another view, or one place of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_backbones.visualizers.inspection import activations


def similarity_map(
    model: nn.Module,
    images: Tensor,
    others: Tensor,
    *,
    point: tuple[float, float] | None = None,
    layer: str | nn.Module | None = None,
) -> Tensor:
    """The cosine (B, H, W) of each place of images (B, 3, H, W) to others, (B, 3, H', W') or one (1, 3, H', W').

    Others are taken as a whole, by the mean over their places; with `point`, at that height and width in [0, 1] from
    the top left. Cosines below zero are 0; 1 is the same direction, so that maps of different images can be compared.
    A map that is not finite somewhere is NaN everywhere.
    ValueError for another number of others.
    """
    if len(others) not in (1, len(images)):
        raise ValueError(f"there are {len(others)} others for {len(images)} images: give one, or one for each")
    places, asked = activations(model, images, layer), activations(model, others, layer)
    wanted = asked.mean((2, 3)) if point is None else at(asked, point)
    cosines = F.cosine_similarity(places, wanted[:, :, None, None], dim=1).clamp(0, 1)
    large = F.interpolate(cosines[:, None], size=images.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(cosines.isfinite().all(2).all(1)[:, None, None], large[:, 0], torch.nan)


def at(features: Tensor, point: tuple[float, float]) -> Tensor:
    """The vectors (B, C) of maps (B, C, h, w) in the cell that holds a point (height, width) in [0, 1]."""
    if not all(0 <= share <= 1 for share in point):
        raise ValueError(f"point is {point}: give height and width as shares in [0, 1] from the top left")
    row, column = (min(int(share * cells), cells - 1) for share, cells in zip(point, features.shape[2:], strict=True))
    return features[:, :, row, column]
