"""FLAGS's global and local pairs: similar images of a class, by the features of another backbone."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_backbones.checks import check_positive

logger = logging.getLogger(__name__)

EXACT_UP_TO = 50_000
"""Images of a class up to which its middle ranks are exact; in a larger one they are those of a sample."""
SAMPLE = 16_384
"""Images in such a sample; a class is never smaller than its sample."""
DISJOINT_FROM = 7
"""Images of a class from which on the pairs have no image in common."""
ENTRIES = 2**22
"""Similarities held at a time."""


@dataclass(frozen=True)
class Mined:
    """The partners of N images, and where they are not quite what they should be."""

    rows: Tensor
    """(N, 4) int64: of each image its global pair, then its local pair, as rows of the features."""
    tiny: tuple[int, ...]
    """Classes too small for pairs without an image in common."""
    sampled: dict[int, float]
    """Classes whose local pairs are of a sampled middle: the standard deviation of its rank, as a share of the list."""


def mine(
    features: Tensor, labels: Tensor, *, exact_up_to: int = EXACT_UP_TO, sample: int = SAMPLE, seed: int = 0
) -> Mined:
    """The partners of images with features (N, D) among those with the same label (N,)."""
    order = labels.argsort(stable=True)
    classes, counts = torch.unique_consecutive(labels[order], return_counts=True)
    rows = torch.empty(len(labels), 4, dtype=torch.long)
    for members in torch.split(order, counts.tolist()):
        rows[members] = members[mine_class(features[members], exact_up_to=exact_up_to, sample=sample, seed=seed)]
    tiny = tuple(classes[counts < DISJOINT_FROM].tolist())
    if tiny:
        logger.warning(
            "%d of %d classes have fewer than %d images, so that global and local pairs share some of them, and an "
            "image without another in its class is its own partner",
            len(tiny),
            len(classes),
            DISJOINT_FROM,
        )
    sampled = classes[counts > max(exact_up_to, sample)].tolist()
    return Mined(rows, tiny, dict.fromkeys(sampled, rank_error(sample)))


def rank_error(sample: int) -> float:
    """The standard deviation of the true rank of a sample's middle, as a share of the whole list."""
    return 0.5 / math.sqrt(sample)


@torch.no_grad()
def mine_class(features: Tensor, *, exact_up_to: int = EXACT_UP_TO, sample: int = SAMPLE, seed: int = 0) -> Tensor:
    """Each image's partners (n, 4) within its class, by features (n, D): a global pair, then a local pair.

    Of the L other images by falling cosine similarity, the first two and the middle two, at ranks L // 2 - 1 and
    L // 2; of equals, the one with the smaller index comes first. In shorter lists ranks repeat, and an image alone is
    its own partner. In a class of more than `exact_up_to` images the middle is that of a `sample`, drawn by `seed`.
    Memory grows with n, not with its square.
    ValueError for features that are not finite, or a sample too small to have a middle.
    """
    check_positive(exact_up_to=exact_up_to)
    if sample < DISJOINT_FROM:
        raise ValueError(f"sample must be at least {DISJOINT_FROM} images to have a middle, not {sample}")
    features = features.float()
    lengths = features.norm(dim=1)
    if not lengths.isfinite().all():
        raise ValueError(f"{int((~lengths.isfinite()).sum())} of {len(features)} features are infinite or NaN")
    count, scale = len(features), 1 / lengths.clamp_min(1e-12)
    if count == 1:
        return torch.zeros(1, 4, dtype=torch.long)
    if count <= max(exact_up_to, sample):
        return by_rank(features, scale, torch.arange(count), ranks(count - 1))
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:sample].sort().values
    middle = by_rank(features, scale, drawn, ranks(sample - 1)[2:])
    return torch.cat([nearest_two(features, scale), middle], dim=1)


def ranks(others: int) -> list[int]:
    """The places of the global and the local pair in a list of `others`, the nearest first."""
    return [min(max(place, 0), others - 1) for place in (0, 1, others // 2 - 1, others // 2)]


def by_rank(features: Tensor, scale: Tensor, among: Tensor, places: list[int]) -> Tensor:
    """For each of n features (n, D), those at the given places (n, P) of its list of the features `among` (m,)."""
    others, other_scale = (features, scale) if len(among) == len(features) else (features[among], scale[among])
    found = []
    for rows in torch.split(torch.arange(len(features)), max(1, ENTRIES // len(among))):
        similarity = cosines(features[rows], scale[rows], others, other_scale)
        similarity.masked_fill_(rows[:, None] == among, -math.inf)
        found.append(among[similarity.sort(dim=1, descending=True, stable=True).indices[:, places]])
    return torch.cat(found)


def nearest_two(features: Tensor, scale: Tensor) -> Tensor:
    """For each of n features (n, D), the two others that are nearest (n, 2)."""
    side = math.isqrt(ENTRIES)
    found = []
    for rows in torch.split(torch.arange(len(features)), side):
        values, indices = torch.full((len(rows), 2), -math.inf), torch.zeros(len(rows), 2, dtype=torch.long)
        for columns in torch.split(torch.arange(len(features)), side):
            similarity = cosines(features[rows], scale[rows], features[columns[0] : columns[-1] + 1], scale[columns])
            similarity.masked_fill_(rows[:, None] == columns, -math.inf)
            first = similarity.max(dim=1, keepdim=True)  # of equals, torch gives the first
            second = similarity.scatter_(1, first.indices, -math.inf).max(dim=1, keepdim=True)
            values = torch.cat([values, first.values, second.values], dim=1)
            indices = torch.cat([indices, columns[first.indices], columns[second.indices]], dim=1)
            best = values.sort(dim=1, descending=True, stable=True).indices[:, :2]
            values, indices = values.gather(1, best), indices.gather(1, best)
        found.append(indices)
    return torch.cat(found)


def cosines(rows: Tensor, row_scale: Tensor, columns: Tensor, column_scale: Tensor) -> Tensor:
    """Cosine similarities (R, C) of features (R, D) and (C, D), given one over the length of each."""
    return (rows * row_scale[:, None] @ columns.T).mul_(column_scale)
