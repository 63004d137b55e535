"""Metrics of collapse: the spread, the effective rank and the similarities of features.

Effective rank: Garrido et al., 2023. https://arxiv.org/abs/2210.02885
Alignment and uniformity: Wang and Isola, 2020. https://arxiv.org/abs/2005.10242
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

BLOCK = 1 << 24
"""Similarities held at once: 128 MiB of float64."""


@torch.no_grad()
def feature_std(features: Tensor) -> float:
    """The spread of features (N, D) on the unit sphere, times sqrt(D): 1 for an even spread, 0 when all are alike.

    It sees complete collapse only; `effective_rank` sees the loss of dimensions.
    """
    unit = normalize(rows(features, at_least=2), dim=1)
    return unit.std(dim=0, correction=0).mean().item() * math.sqrt(unit.shape[1])


@torch.no_grad()
def effective_rank(features: Tensor, eps: float = 1e-7) -> float:
    """RankMe: exp of the entropy of the normalised singular values of features (N, D), from 1 to min(N, D).

    Give N of at least 4 D: fewer rows cap and bias it. All-zero features have rank 0.
    """
    sigma = torch.linalg.svdvals(rows(features, at_least=1))
    total = sigma.sum()
    if total == 0:
        return 0.0
    p = sigma / total + eps
    return math.exp(-(p * p.log()).sum().item())


@torch.no_grad()
def alignment(first: Tensor, second: Tensor, alpha: float = 2.0) -> float:
    """E |x - y|^alpha over pairs of unit features (N, D): 0 when the two views of each image agree.

    ValueError for views of different shapes.
    """
    if first.shape != second.shape:
        raise ValueError(f"views are {tuple(first.shape)} and {tuple(second.shape)}; give both as (N, D), row for row.")
    x, y = normalize(rows(first, at_least=1), dim=1), normalize(rows(second, at_least=1), dim=1)
    return torch.pow(torch.linalg.vector_norm(x - y, dim=1), alpha).mean().item()


@torch.no_grad()
def uniformity(features: Tensor, t: float = 2.0) -> float:
    """log E exp(-t |x - y|^2) over distinct pairs of unit features (N, D): 0 when all are alike, lower when spread.

    Rows of zeros have no direction, and are alike.
    """
    x = normalize(rows(features, at_least=2), dim=1)
    squares = x.square().sum(dim=1)
    blocks = torch.arange(len(x)).split(max(1, BLOCK // len(x)))
    total = sum(torch.exp(t * (2 * x[i] @ x.T - squares[i, None] - squares)).sum().item() for i in blocks)
    return math.log((total - len(x)) / (len(x) * (len(x) - 1)))


def rows(features: Tensor, at_least: int) -> Tensor:
    """Features (N, D) in float64, which a sum over singular values or pairs asks for."""
    if features.ndim != 2 or len(features) < at_least:
        raise ValueError(f"features are {tuple(features.shape)}; give (N, D) with N of at least {at_least}.")
    if not features.isfinite().all():
        raise ValueError("features hold NaN or infinity, where finite numbers are needed; look at the network's loss.")
    return features.double()
