"""k-means of whitened features, in torch alone. From the same numbers, on the same machine, the same clusters."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import one_hot

ENTRIES = 2**24
"""The most numbers of a table of points and clusters that are held at once."""
ROWS = 2**14
"""Features that are whitened at once."""


@torch.no_grad()
def pca_whiten(features: Tensor, dim: int, device: torch.device | None = None) -> Tensor:
    """The first `dim` principal components of features (N, D), each of mean 0 and variance 1: (N, dim).

    A component along which nothing varies is 0. They are computed on the device, that of the features by default, to
    which these are brought in parts.
    """
    device, mean = device or features.device, features.mean(0)
    parts = torch.split(features, ROWS)
    covariance = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64, device=device)
    for part in parts:
        centred = (part - mean).to(device, torch.float64)
        covariance += centred.T @ centred
    variance, axes = torch.linalg.eigh(covariance / len(features))  # ascending
    variance, axes = variance[-dim:].flip(0), axes[:, -dim:].flip(1)
    scale = torch.where(variance > 1e-9 * variance[0], variance.clamp(min=1e-30).rsqrt(), 0)
    whiten = (axes * scale).to(features.dtype)
    return torch.cat([(part - mean).to(device) @ whiten for part in parts])


@torch.no_grad()
def k_means(
    points: Tensor, clusters: int, generator: torch.Generator, restarts: int = 5, iterations: int = 30
) -> Tensor:
    """The cluster (N,) of each of the points (N, D): of several beginnings, what came nearest. Lloyd, 1982.

    The generator is of the points' device. A cluster that loses its points takes the one farthest from its own centre.
    """
    return share_of_k_means(points, clusters, generator, restarts, iterations, rank=0, world_size=1)[0]


@torch.no_grad()
def share_of_k_means(
    points: Tensor,
    clusters: int,
    generator: torch.Generator,
    restarts: int,
    iterations: int,
    rank: int,
    world_size: int,
) -> tuple[Tensor, tuple[float, int]]:
    """The cluster (N,) of each of the points (N, D) by one process's share of the beginnings of `k_means`.

    Also the sum of squared distances, infinite for a process without a beginning, and the beginning's number: where the
    pair is the least, there are the clusters of all. ValueError for more clusters than points.
    """
    if clusters > len(points):
        raise ValueError(f"{len(points)} points cannot fill {clusters} clusters: ask for at most {len(points)}")
    best, nearest = torch.zeros(len(points), dtype=torch.long, device=points.device), (math.inf, restarts)
    for number in range(restarts):
        if number % world_size != rank:
            for _ in range(clusters):  # another's draws
                points.new_empty(len(points)).exponential_(generator=generator)
            continue
        labels, distances = lloyd(points, plus_plus(points, clusters, generator), iterations)
        if (found := (float(distances.sum()), number)) < nearest:
            best, nearest = labels, found
    return best, nearest


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
    sums = points.new_zeros(clusters, points.shape[1])
    for part, label in zip(split(points, clusters), split(labels, clusters), strict=True):
        sums += one_hot(label, clusters).to(part.dtype).T @ part
    counts = torch.bincount(labels, minlength=clusters)
    centres = sums / counts.clamp(min=1)[:, None]
    empty = (counts == 0).nonzero()[:, 0]
    centres[empty] = points[distances.topk(len(empty)).indices]
    return centres


def split(rows: Tensor, clusters: int) -> Iterator[Tensor]:
    """The rows in parts whose table with the clusters is small enough."""
    yield from torch.split(rows, max(1, ENTRIES // clusters))
