"""Losses between positions of two views' feature maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from ssl_backbones.losses.contrastive import info_nce
from ssl_backbones.losses.precision import in_single_precision

AT_ONCE = 2**26
"""Numbers for pairs of positions, or of positions and negatives, that are held at once; more are computed part by part,
and again for the gradient."""
EXACT = "donot_use_mm_for_euclid_dist"
"""Distances by differences: those by products lose digits where they are small."""


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


@in_single_precision
def propagated(positions: Tensor, values: Tensor, sharpness: float) -> Tensor:
    """y: each position's mixture (B, P, D) of the unit values (B, P, D) of its view, by how alike the positions are.

    PixPro (Xie et al., 2021), eq. 2 and 3: y_i = sum_j max(cos(x_i, x_j), 0)^sharpness g(x_j), positions x (B, P, D).
    """
    parts = split_images(positions, positions, values)
    if len(parts) == 1:
        return _propagated(positions, values, sharpness)
    return torch.cat([checkpoint(_propagated, x, g, sharpness, use_reentrant=False) for x, _, g in parts])


def _propagated(positions: Tensor, values: Tensor, sharpness: float) -> Tensor:
    unit = normalize(positions, dim=2)
    return (unit @ unit.mT).relu().pow(sharpness) @ normalize(values, dim=2)


def split_images(first: Tensor, second: Tensor, *others: Tensor) -> list[tuple[Tensor, ...]]:
    """The tensors (B, ...) in parts of so many images that AT_ONCE pairs of positions (B, P, D), (B, Q, D) are held."""
    count = max(1, AT_ONCE // (first.shape[1] * second.shape[1]))
    return list(zip(*(each.split(count) for each in (first, second, *others)), strict=True))


@torch.no_grad()
@in_single_precision
def nearby(corners: Tensor, other: Tensor, grid: tuple[int, int], distance: float) -> Tensor:
    """A: pairs (B, P, P) bool of positions of two views that show about the same place of the image.

    PixPro (Xie et al., 2021), eq. 1: their centres lie nearer than `distance` times the longer of the two views'
    diagonals of a position. Corners x0, y0, x1, y1 (B, 4) are those of the views in the image, where a mirrored one has
    x0 > x1; the grid is P = h * w positions, down and across.
    """
    apart = place_distances(corners, other, grid)
    diagonals = [torch.hypot((x1 - x0) / grid[1], (y1 - y0) / grid[0]) for x0, y0, x1, y1 in (corners.T, other.T)]
    return apart < distance * torch.maximum(*diagonals)[:, None, None]


@torch.no_grad()
@in_single_precision
def place_distances(corners: Tensor, other: Tensor, grid: tuple[int, int]) -> Tensor:
    """The distances (B, P, P) in the image of the centres of two views' h x w positions, in the unit of their corners.

    Corners (B, 4) are x0, y0, x1, y1 of the views in the image.
    """
    return torch.cdist(centres(corners, grid), centres(other, grid), compute_mode=EXACT)


@torch.no_grad()
@in_single_precision
def embedding_distances(first: Tensor, second: Tensor) -> Tensor:
    """The distances (B, P, Q) of embeddings (B, P, D) and (B, Q, D)."""
    return torch.cdist(first, second, compute_mode=EXACT)


def matched_positions(first: Tensor, second: Tensor, distances: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` embeddings (B, count, D) of (B, P, D) whose partners are nearest, and these partners of (B, Q, D).

    VICRegL (Bardes et al., 2022), section 3.2: the partner of a position is the one of the other view with the smallest
    of its distances (B, P, Q). All P where there are no more.
    """
    nearest, partners = distances.min(2)
    chosen = nearest.topk(min(count, nearest.shape[1]), largest=False).indices
    taken = (first, chosen), (second, partners.gather(1, chosen))
    one, other = (rows.gather(1, at[..., None].expand(-1, -1, rows.shape[2])) for rows, at in taken)
    return one, other


def centres(corners: Tensor, grid: tuple[int, int]) -> Tensor:
    """The centres x, y (B, P, 2) of the h x w positions, row by row, of views with corners (B, 4)."""
    down, across = ((torch.arange(count, device=corners.device, dtype=corners.dtype) + 0.5) / count for count in grid)
    x0, y0, x1, y1 = (side[:, None] for side in corners.unbind(1))
    x, y = x0 + (x1 - x0) * across, y0 + (y1 - y0) * down
    return torch.stack([x.repeat(1, grid[0]), y.repeat_interleave(grid[1], dim=1)], dim=2)


@in_single_precision
def pixel_consistency(predictions: Tensor, targets: Tensor, pairs: Tensor) -> Tensor:
    """-2 cos of predictions (B, P, D) and targets (B, Q, D), mean over an image's pairs (B, P, Q), then over images.

    PixPro (Xie et al., 2021), eq. 4, in one direction and as the authors' code has it. An image without pairs counts as
    0. The targets get no gradient.
    """
    with torch.no_grad():  # the sum over j of y_i.x'_j is y_i. the sum of x'_j: no pair's cosine is kept
        parts = split_images(predictions, targets, pairs)
        sums = torch.cat([part.to(x.dtype) @ normalize(x, dim=2) for _, x, part in parts])
        count = pairs.flatten(1).sum(1).to(sums.dtype)
    alike = (normalize(predictions, dim=2) * sums).sum((1, 2)) / (count + 1e-6)
    return -2 * alike.mean()
