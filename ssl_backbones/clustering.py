"""k-means of whitened features, in torch alone. From the same numbers, on the same machine, the same clusters."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import one_hot

ENTRIES = 2**24
"""The most numbers of a table of points and clusters that are held at once."""


@torch.no_grad()
def pca_whiten(features: Tensor, dim: int) -> Tensor:
    """The first `dim` principal components of features (N, D), each of mean 0 and variance 1: (N, dim).

    A component along which nothing varies is 0.
    """
    count, mean = len(features), features.mean(0)
    parts = (part.double() for part in torch.split(features - mean, 2**14))
    covariance = torch.stack([part.T @ part for part in parts]).sum(0) / count
    variance, axes = torch.linalg.eigh(covariance)  # ascending
    variance, axes = variance[-dim:].flip(0), axes[:, -dim:].flip(1)
    scale = torch.where(variance > 1e-9 * variance[0], variance.clamp(min=1e-30).rsqrt(), 0)
    components: Tensor = (features - mean) @ (axes * scale).to(features.dtype)
    return components


@torch.no_grad()
def k_means(
    points: Tensor, clusters: int, generator: torch.Generator, restarts: int = 5, iterations: int = 30
) -> Tensor:
    """The cluster (N,) of each of the points (N, D): of several beginnings, what came nearest. Lloyd, 1982.

    The generator is of the points' device. A cluster that loses its points takes the one farthest from its own centre.
    """
    if clusters > len(points):
        raise ValueError(f"{len(points)} points cannot fill {clusters} clusters: ask for at most {len(points)}")
    runs = [lloyd(points, plus_plus(points, clusters, generator), iterations) for _ in range(restarts)]
    return min(runs, key=lambda run: float(run[1].sum()))[0]


def plus_plus(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Centres (K, D) to begin with: points, each drawn by its squared distance to those before. Arthur, 2007."""
    squares = points.square().sum(1)
    nearest = torch.ones_like(squares)
    chosen: list[Tensor] = []
    for number in range(clusters):
        # The first of clocks that ring at the rates `nearest`: a draw by these weights, without their sum.
        index = (torch.empty_like(nearest).exponential_(generator=generator) / nearest).argmin()
        chosen.append(points[index])
        distance = (squares - 2 * points @ chosen[-1] + squares[index]).clamp(min=0)
        distance[index] = 0
        nearest = distance if number == 0 else torch.minimum(nearest, distance)
    return torch.stack(chosen)


def lloyd(points: Tensor, centres: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """The nearest centre (N,) of each point and its squared distance, after so many rounds or when nothing moves."""
    labels, distances = assigned(points, centres)
    for _ in range(iterations):
        centres = centred(points, labels, distances, len(centres))
        moved, distances = assigned(points, centres)
        if torch.equal(moved, labels):
            break
        labels = moved
    return labels, distances


def assigned(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre (N,) of each point, and its squared distance."""
    squares = centres.square().sum(1)
    parts = [(part, (squares - 2 * part @ centres.T).min(1)) for part in split(points, len(centres))]
    labels = torch.cat([nearest.indices for _, nearest in parts])
    distances = torch.cat([nearest.values + part.square().sum(1) for part, nearest in parts])
    return labels, distances.clamp(min=0)


def centred(points: Tensor, labels: Tensor, distances: Tensor, clusters: int) -> Tensor:
    """The mean (K, D) of each cluster's points; of empty ones, the points farthest away from their own centres.

    Sums are products with a table of zeros and ones: scattered additions come out differently each time on a GPU.
    """
    parts = zip(split(points, clusters), split(labels, clusters), strict=True)
    sums = torch.stack([one_hot(label, clusters).to(part.dtype).T @ part for part, label in parts]).sum(0)
    counts = torch.bincount(labels, minlength=clusters)
    centres = sums / counts.clamp(min=1)[:, None]
    empty = (counts == 0).nonzero()[:, 0]
    centres[empty] = points[distances.topk(len(empty)).indices]
    return centres


def split(rows: Tensor, clusters: int) -> Iterator[Tensor]:
    """The rows in parts whose table with the clusters is small enough."""
    yield from torch.split(rows, max(1, ENTRIES // clusters))
