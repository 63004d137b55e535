"""k-means of whitened features, in torch alone. From the same numbers, on the same machine, the same clusters.

Each process of a run holds some of the rows, in the order of ranks, and all work on every round: the centres come of
sums over all, which are exact, so that neither their order nor the number of processes makes a difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ssl_backbones.distributed import doing, first_decides, gather, gather_objects, rank, sum_over_processes

ENTRIES = 2**24
"""The most numbers of a table of points and clusters that are held at once."""
ROWS = 2**14
"""Features that are whitened at once."""
DRAWN_BY_DISTANCE = 1024
"""The most clusters whose beginnings are drawn one after the other; of thousands, that takes longer than the rounds."""
NEARER = 1e-6
"""The share by which a beginning must come nearer than an earlier one; less is rounding."""


@torch.no_grad()
def pca_whiten(features: Tensor, dim: int, device: torch.device | None = None) -> Tensor:
    """The first `dim` principal components of features (N, D), each of mean 0 and variance 1 over all: (N, dim).

    A component along which nothing varies is 0. They are computed on the device, that of the features by default, to
    which these are brought in parts.
    """
    device = device or features.device
    width = features.shape[1]
    sums = torch.zeros(width + 1, dtype=torch.float64, device=device)  # and the number of rows
    for part in features.split(ROWS):
        sums[:-1] += part.to(device, torch.float64).sum(0)
        sums[-1] += len(part)
    sums = sum_over_processes(sums)
    mean = (sums[:-1] / sums[-1]).to(features.dtype)
    covariance = torch.zeros(width, width, dtype=torch.float64, device=device)
    for part in features.split(ROWS):
        apart = (part.to(device) - mean).to(torch.float64)
        covariance += apart.T @ apart
    covariance = sum_over_processes(covariance) / sums[-1]
    whiten = first_decides(lambda: whitening(covariance, dim).cpu()).to(device, features.dtype)
    points = torch.empty(len(features), dim, dtype=features.dtype, device=device)
    for part, place in zip(features.split(ROWS), points.split(ROWS), strict=True):
        place.copy_((part.to(device) - mean) @ whiten)
    return points


def whitening(covariance: Tensor, dim: int) -> Tensor:
    """The matrix (D, dim) that makes the first components of what varies so (D, D), each of variance 1."""
    variance, axes = torch.linalg.eigh(covariance)  # ascending
    variance, axes = variance[-dim:].flip(0), axes[:, -dim:].flip(1)
    matrix: Tensor = axes * torch.where(variance > 1e-9 * variance[0], variance.clamp(min=1e-30).rsqrt(), 0)
    return matrix


@torch.no_grad()
def k_means(
    points: Tensor, clusters: int, generator: torch.Generator, restarts: int = 5, iterations: int = 30
) -> Tensor:
    """The cluster (N,) of each of this process's points (N, D): of several beginnings, what came nearest. Lloyd, 1982.

    The generator is of the points' device, and alike in all processes. A cluster that loses its points takes the one
    farthest from its own centre. ValueError for more clusters than points, those of all processes together.
    """
    counts = gather_objects(len(points))
    everyone, first = sum(counts), sum(counts[: rank()])
    if clusters > everyone:
        raise ValueError(f"{everyone} points cannot fill {clusters} clusters: ask for at most {everyone}")
    own = slice(first, first + len(points))
    best, nearest = torch.zeros(len(points), dtype=torch.long, device=points.device), math.inf
    for number in range(restarts):
        with doing(f"Clustering {everyone} images into {clusters}: beginning {number + 1} of {restarts}"):
            begin = plus_plus if clusters <= DRAWN_BY_DISTANCE else scattered
            centres = begin(points, clusters, generator, everyone, own)
            labels, distances = lloyd(points, centres, iterations)
            total = float(sum_over_processes(distances.double().sum()))
        if total < nearest * (1 - NEARER):
            best, nearest = labels, total
    return best


def plus_plus(points: Tensor, clusters: int, generator: torch.Generator, everyone: int, own: slice) -> Tensor:
    """Centres (K, D) to begin with: points, each drawn by its squared distance to those before. Arthur, 2007.

    This process's points (N, D) are the rows `own` of `everyone`.
    """
    squares = points.square().sum(1)
    nearest = torch.ones_like(squares)
    chosen: list[Tensor] = []
    for number in range(clusters):
        # The first of clocks that ring at the rates `nearest`: a draw by these weights, without their sum.
        rings = points.new_empty(everyone).exponential_(generator=generator)[own] / nearest
        index, square, centre, mine = first_to_ring(points, squares, rings)
        chosen.append(centre)
        distance = (squares - points @ (2 * centre) + square).clamp(min=0)
        if len(points):
            distance[index] = torch.where(mine, 0, distance[index])
        nearest = distance if number == 0 else torch.minimum(nearest, distance)
    return torch.stack(chosen)


def scattered(points: Tensor, clusters: int, generator: torch.Generator, everyone: int, own: slice) -> Tensor:
    """Centres (K, D) to begin with: so many different ones of all points, as faiss takes them."""
    rows = torch.randperm(everyone, generator=generator, device=points.device)[:clusters]
    here = (rows >= own.start) & (rows < own.stop)
    centres = points.new_zeros(clusters, points.shape[1])
    centres[here] = points[rows[here] - own.start]
    return sum_over_processes(centres)


def first_to_ring(points: Tensor, squares: Tensor, rings: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The earliest of this process's clocks (N,), and of all: its point's square, the point (D,), and if it is here."""
    index, offer = torch.zeros((), dtype=torch.long, device=points.device), points.new_zeros(2 + points.shape[1])
    offer[0] = math.inf
    if len(points):
        index = rings.argmin()
        offer = torch.cat([rings[index, None], squares[index, None], points[index]])
    offers = gather(offer[None])
    winner = offers[:, 0].argmin()
    return index, offers[winner, 1], offers[winner, 2:], winner == rank()


def lloyd(points: Tensor, centres: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """The nearest centre (N,) of each point and its squared distance, after so many rounds or when nothing moves."""
    own = squares_of(points, len(centres))
    labels, distances = assigned(points, centres, own)
    for _ in range(iterations):
        centres = centred(points, labels, distances, len(centres))
        moved, distances = assigned(points, centres, own)
        if not sum_over_processes((moved != labels).sum()):
            break
        labels = moved
    return labels, distances


def squares_of(points: Tensor, clusters: int) -> Tensor:
    """The squared length (N,) of each point, of as many at once as are held against so many centres."""
    return torch.cat([part.square().sum(1) for part in split(points, clusters)])


def assigned(points: Tensor, centres: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre (N,) of each point, and its squared distance; `own` are the squared lengths of points."""
    squares, double = centres.square().sum(1), (2 * centres).T
    parts = [(squares - part @ double).min(1) for part in split(points, len(centres))]
    labels = torch.cat([nearest.indices for nearest in parts])
    return labels, (torch.cat([nearest.values for nearest in parts]) + own).clamp(min=0)


def centred(points: Tensor, labels: Tensor, distances: Tensor, clusters: int) -> Tensor:
    """The mean (K, D) of each cluster's points; of empty ones, the points farthest away from their own centres."""
    counts = sum_over_processes(torch.bincount(labels, minlength=clusters))
    centres = sums_of_clusters(points, labels, counts) / counts.clamp(min=1)[:, None]
    empty = (counts == 0).nonzero()[:, 0]
    if len(empty):
        centres[empty] = farthest(points, distances, len(empty))
    return centres


def sums_of_clusters(points: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """The sum (K, D) of each cluster's points over all processes, of clusters with so many (K,).

    Whole numbers are added, multiples of a power of two that leaves all of them below 2**62: that is exact, so that no
    order matters, neither that of processes nor that in which a GPU adds; numbers of single precision within 2**16 of
    the largest are not rounded at all where there are two million.
    """
    ends = torch.stack([*points.aminmax()]) if len(points) else points.new_zeros(2)
    _, power = math.frexp(float(gather(ends).abs().max()))
    bits = 62 - int(counts.sum()).bit_length() - max(power, -30)
    sums = torch.zeros(len(counts), points.shape[1], dtype=torch.long, device=points.device)
    for part, label in zip(split(points, points.shape[1]), split(labels, points.shape[1]), strict=True):
        sums.index_add_(0, label, (part * 2.0**bits).round().long())
    return sum_over_processes(sums).to(points.dtype) * 2.0**-bits


def farthest(points: Tensor, distances: Tensor, count: int) -> Tensor:
    """The points (count, D) of all processes that are farthest from their centres; of equal ones, the first."""
    own = distances.sort(descending=True, stable=True).indices[:count]
    offers = distances.new_full((count,), -1)
    offers[: len(own)] = distances[own]
    chosen = gather(offers).sort(descending=True, stable=True).indices[:count]
    here = chosen // count == rank()
    rows = points.new_zeros(count, points.shape[1])
    rows[here] = points[own[chosen[here] % count]]
    return sum_over_processes(rows)


def split(rows: Tensor, columns: int) -> Iterator[Tensor]:
    """The rows in parts whose table of so many columns is small enough."""
    yield from torch.split(rows, max(1, ENTRIES // columns))
