"""Measures of features that need no labels: views that find their own image, and neighbours that two networks share.

Retrieval of an image by a view of it is instance discrimination, the task of Wu et al., 2018
(https://arxiv.org/abs/1805.01978), asked of features; shared neighbours are the mutual k-NN of Huh et al., 2024
(https://arxiv.org/abs/2405.07987).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_backbones.metrics.knn import BLOCK

SAME = 1e-6
"""Cosines closer than this are equal: less is rounding to single precision."""


@torch.no_grad()
def own_image_found(views: Tensor, images: Tensor, own: Tensor) -> Tensor:
    """True (M,) for each view (M, D) that is nearer by cosine to its own image than to all other images (N, D).

    `own` (M,) is the row of each view's image. A view that is as near to another image has not found its own, so
    features that are all alike find none. ValueError where shapes do not fit, or features are not finite.
    """
    check_pair(views, images)
    if own.shape != views.shape[:1] or not ((own >= 0) & (own < len(images))).all():
        raise ValueError(f"own is {tuple(own.shape)}; give the row, from 0 to {len(images) - 1}, of each view's image.")
    bank, own = normalize(images.float(), dim=1), own.to(images.device)
    found = []
    for block, rows in zip(
        views.split(max(1, BLOCK // len(images))), own.split(max(1, BLOCK // len(images))), strict=True
    ):
        cosines = normalize(block.to(bank).float(), dim=1) @ bank.T
        least = cosines.gather(1, rows[:, None]) - SAME
        found.append((cosines >= least).sum(dim=1) == 1)
    return torch.cat(found).cpu()


@torch.no_grad()
def nearest_others(features: Tensor, k: int) -> Tensor:
    """The rows (N, k) of the k others that are nearest by cosine to each of features (N, D), in rising order.

    ValueError for a k that is not from 1 to N - 1, or features that are not finite.
    """
    check_pair(features, features)
    if not 1 <= k < len(features):
        raise ValueError(f"k is {k} for {len(features)} features; give k from 1 to less than their number.")
    unit = normalize(features.float(), dim=1)
    found = []
    for start in range(0, len(unit), max(1, BLOCK // len(unit))):
        cosines = unit[start : start + max(1, BLOCK // len(unit))] @ unit.T
        cosines[torch.arange(len(cosines)), start + torch.arange(len(cosines))] = -torch.inf
        found.append(cosines.topk(k, dim=1).indices.sort(dim=1).values)
    return torch.cat(found).cpu()


def shared_neighbours(one: Tensor, other: Tensor) -> Tensor:
    """The share (N,) of each image's neighbours, rows (N, k), that are the same by another network, rows (N, k).

    k / (N - 1) is chance. ValueError where the two do not pair.
    """
    if one.shape != other.shape or one.ndim != 2 or not one.numel():
        raise ValueError(f"neighbours are {tuple(one.shape)} and {tuple(other.shape)}; give (N, k) twice, row for row.")
    return (one[:, :, None] == other[:, None, :]).any(dim=2).double().mean(dim=1)


def check_pair(queries: Tensor, bank: Tensor) -> None:
    """ValueError for features of two widths, none at all, or such as are not finite."""
    if bank.ndim != 2 or queries.ndim != 2 or bank.shape[1] != queries.shape[1] or not len(bank) or not len(queries):
        raise ValueError(f"features are {tuple(queries.shape)} and {tuple(bank.shape)}; give (M, D) and (N, D).")
    if not (bank.isfinite().all() and queries.isfinite().all()):
        raise ValueError("features hold NaN or infinity, where finite numbers are needed; look at the network's loss.")
