"""Losses between positions of two views' feature maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_backbones.losses.contrastive import info_nce
from ssl_backbones.losses.parts import in_parts, rows_at_once
from ssl_backbones.losses.precision import in_single_precision

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
    rows, count = queries.flatten(0, 1), rows_at_once(len(negatives))
    if len(rows) <= count:
        return info_nce(rows, positives, negatives, temperature)

    def summed(part: Tensor, own: Tensor) -> Tensor:
        return info_nce(part, own, negatives, temperature) * len(part)

    return torch.stack(in_parts(summed, (rows, positives), count)).sum() / len(rows)


@in_single_precision
def propagated(positions: Tensor, values: Tensor, sharpness: float) -> Tensor:
    """y: each position's mixture (B, P, D) of the unit values (B, P, D) of its view, by how alike the positions are.

    PixPro (Xie et al., 2021), eq. 2 and 3: y_i = sum_j max(cos(x_i, x_j), 0)^sharpness g(x_j), positions x (B, P, D).
    """

    def mixed(x: Tensor, g: Tensor) -> Tensor:
        unit = normalize(x, dim=2)
        return (unit @ unit.mT).relu().pow(sharpness) @ normalize(g, dim=2)

    return torch.cat(in_parts(mixed, (positions, values), rows_at_once(positions.shape[1] ** 2)))


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
        summed = in_parts(
            lambda x, part: part.to(x.dtype) @ normalize(x, dim=2), (targets, pairs), rows_at_once(pairs[0].numel())
        )
        sums = torch.cat(summed)
        count = pairs.flatten(1).sum(1).to(sums.dtype)
    alike = (normalize(predictions, dim=2) * sums).sum((1, 2)) / (count + 1e-6)
    return -2 * alike.mean()
