"""Methods that compare places: their losses against slow loops, from the boxes and the mirroring of unlike views."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_methods import small_method
from test_rivals import normal
from torch import Tensor
from torch.nn.functional import normalize

from ssl_backbones.losses import region_means, vicreg
from ssl_backbones.methods import PixProConfig, ReSimConfig, VICRegLConfig
from ssl_backbones.methods.resim import COARSE, COMPARED, FINE
from ssl_backbones.views import Geometry, Located

BOXES = [
    [[0, 0, 32, 5], [0, 0, 17, 10]],
    [[6, 3, 12, 26], [1, 1, 13, 25]],
    [[1, 7, 38, 12], [4, 1, 37, 22]],
    [[3, 16, 7, 21], [0, 0, 6, 40]],
]
"""Left, top, width and height of two views of each of four images: no two distances of positions are about as small."""
FLIPS = [[True, False], [False, True], [True, False], [False, False]]
SIZES = [[33, 11], [18, 45], [41, 24], [10, 41]]


def unlike_views() -> Located:
    """Views (4, 3, 16, 24) whose places are unlike in every way: the order of sides, images and views tells."""
    geometry = Geometry(torch.tensor(BOXES), torch.tensor(FLIPS), torch.tensor(SIZES))
    return Located([normal(seed, 4, 3, 16, 24) for seed in (1, 2)], geometry)


def still(kind: Any, **choices: Any) -> Any:
    """The method in double precision and evaluation mode: the same numbers whenever it looks at a view."""
    return small_method(kind, **choices).double().eval()


def middles(geometry: Geometry, image: int, view: int, grid: tuple[int, int]) -> list[tuple[float, float]]:
    """The middle of each position of a view in its image, in pixels, between the middles of its first and last ones."""
    left, top, width, height = geometry.boxes[image, view].tolist()
    found = []
    for row in range(grid[0]):
        for column in range(grid[1]):
            across = (column + 0.5) / grid[1]
            across = 1 - across if geometry.flips[image, view] else across
            found.append((left + across * (width - 1), top + (row + 0.5) / grid[0] * (height - 1)))
    return found


def apart(batch: Located, grid: tuple[int, int]) -> list[list[list[float]]]:
    """The distances in pixels of every position of the first view from every one of the second, image by image."""
    both = [[middles(batch.geometry, image, view, grid) for view in (0, 1)] for image in range(4)]
    return [[[math.dist(one, other) for other in second] for one in first] for first, second in both]


def transposed(rows: list[list[list[float]]]) -> list[list[list[float]]]:
    """The distances of the second view's positions from the first's."""
    return [[list(column) for column in zip(*image, strict=True)] for image in rows]


def nearest(first: Tensor, second: Tensor, distances: list[list[list[float]]], count: int) -> tuple[Tensor, Tensor]:
    """The embeddings of the positions with the nearest partners, and these partners', by sorting."""
    chosen, partners = [], []
    for image, rows in enumerate(distances):
        order = sorted(range(len(rows)), key=lambda i, rows=rows: min(rows[i]))[:count]  # type: ignore[misc]
        chosen.append(first[image, order])
        partners.append(second[image, [rows[i].index(min(rows[i])) for i in order]])
    return torch.stack(chosen), torch.stack(partners)


@torch.no_grad()
def test_vicregl_scores_positions_by_their_places() -> None:
    method, batch = still(VICRegLConfig, matches=5, global_weight=0.25), unlike_views()
    (z1, first, grid), (z2, second, _) = (method.embed(view) for view in batch.views)
    alike = [[[float((one - two).norm()) for two in b] for one in a] for a, b in zip(first, second, strict=True)]
    local = 0.0
    for distances in (apart(batch, grid), alike):
        forth, back = nearest(first, second, distances, 5), nearest(second, first, transposed(distances), 5)
        local += (vicreg(*forth).item() + vicreg(*back).item()) / 2
    expected = 0.25 * vicreg(z1, z2).item() + 0.75 * local
    assert method(batch)["loss"].item() == pytest.approx(expected, rel=1e-9)


def mixtures(method: Any, x: Tensor) -> Tensor:
    """y: each position's mixture of its view's values, by the cosines of all positions."""
    values, y = normalize(method.value(x), dim=2), torch.zeros_like(x)
    for image in range(len(x)):
        for i, own in enumerate(normalize(x[image], dim=1)):
            for j, other in enumerate(normalize(x[image], dim=1)):
                y[image, i] += max(float(own @ other), 0.0) ** method.config.sharpness * values[image, j]
    return y


def bins_apart(geometry: Geometry, image: int, grid: tuple[int, int]) -> list[list[float]]:
    """The distances of positions of two views in diagonals of a position, where an image's sides are 1."""
    width, height = (side - 1 for side in geometry.sizes[image].tolist())
    both = [[(x / width, y / height) for x, y in middles(geometry, image, view, grid)] for view in (0, 1)]
    ends = [((w - 1) / width, (h - 1) / height) for _, _, w, h in geometry.boxes[image].tolist()]
    diagonal = max(math.hypot(across / grid[1], down / grid[0]) for across, down in ends)
    return [[math.dist(one, other) / diagonal for other in both[1]] for one in both[0]]


@torch.no_grad()
def test_pixpro_scores_positions_at_the_same_place() -> None:
    method, batch = still(PixProConfig), unlike_views()
    found = [method.project(method, view) for view in batch.views]
    y1, y2 = (mixtures(method, x) for x, _ in found)
    target1, target2 = (method.project(method.target, view)[0] for view in batch.views)
    total = 0.0
    for image in range(4):
        rows = bins_apart(batch.geometry, image, found[0][1])
        pairs = [(i, j) for i, row in enumerate(rows) for j, away in enumerate(row) if away < method.config.distance]
        for i, j in pairs:
            cosines = [
                float(torch.cosine_similarity(y[image, a], x[image, b], dim=0))
                for y, x, a, b in ((y1, target2, i, j), (y2, target1, j, i))
            ]
            total -= 2 * sum(cosines) / (len(pairs) + 1e-6)
    assert method(batch)["loss"].item() == pytest.approx(total / 4, rel=1e-9)


def window_shares(window: tuple[int, int], high: int, wide: int) -> list[list[float]]:
    """Windows x0, y0, x1, y1 of a map, by rows, as shares of its sides."""
    size, stride = window
    return [
        [x / wide, y / high, (x + size) / wide, (y + size) / high]
        for y in range(0, high - size, stride)
        for x in range(0, wide - size, stride)
    ]


def seen(window: list[float], geometry: Geometry, image: int) -> list[float]:
    """A window of the first view of an image in the second: x0, y0, x1, y1 as shares of its sides."""
    (first, second), (mirrored, mirrored_too) = geometry.boxes[image].tolist(), geometry.flips[image].tolist()
    ends = []
    for at, flips in ((0, (mirrored, mirrored_too)), (1, (False, False))):
        shares = [1 - share if flips[0] else share for share in (window[at], window[at + 2])]
        shares = [(first[at] + share * first[at + 2] - second[at]) / second[at + 2] for share in shares]
        ends.append(sorted(1 - share if flips[1] else share for share in shares))
    return [ends[0][0], ends[1][0], ends[0][1], ends[1][1]]


def windows_of(maps: Tensor) -> Tensor:
    """The means of all windows that are negatives, of maps (B, C, h, w), as unit vectors."""
    high, wide = (side - COMPARED + 1 for side in maps.shape[2:])
    return torch.stack(
        [
            normalize(one[:, y : y + COMPARED, x : x + COMPARED].mean((1, 2)), dim=0)
            for one in maps
            for y in range(high)
            for x in range(wide)
        ]
    )


def surprise(query: Tensor, key: Tensor, negatives: Tensor, tau: float) -> float:
    """InfoNCE of one query."""
    query, key = normalize(query, dim=0), normalize(key, dim=0)
    positive = math.exp(float(query @ key) / tau)
    return math.log(positive + sum((negatives @ query / tau).exp().tolist())) - math.log(positive)


def regional(maps: Tensor, keys: Tensor, geometry: Geometry, window: tuple[int, int], groups: int, tau: float) -> float:
    """InfoNCE of one level's windows, image by image, mean over those that both views hold."""
    shared, found = [windows_of(part) for part in keys.chunk(groups)], []
    for image in range(4):
        for own in window_shares(window, *maps.shape[2:]):
            other = seen(own, geometry, image)
            if min(other) < -1e-4 or max(other) > 1 + 1e-4:
                continue
            spans = (torch.tensor([one], dtype=torch.float64) for one in (own, other))
            query, key = (
                region_means(each[image, None], span)[0, 0] for each, span in zip((maps, keys), spans, strict=True)
            )
            found.append(surprise(query, key, shared[image * groups // 4], tau))
    return sum(found) / len(found)


@torch.no_grad()
def test_resim_scores_regions_at_the_same_place() -> None:
    method, batch = still(ReSimConfig, key_bn="ema", bn_splits=2), unlike_views()
    tau = method.config.temperature
    q, fine, coarse = method.encode(method, batch.views[0])
    k, key_fine, key_coarse = method.encode(method.key_encoder, batch.views[1])
    found = {name: value.item() for name, value in method(batch).items() if isinstance(value, Tensor)}
    expected = [
        sum(surprise(one, other, method.queue.keys, tau) for one, other in zip(q, k, strict=True)) / 4,
        regional(fine, key_fine, batch.geometry, FINE, 2, tau),
        regional(coarse, key_coarse, batch.geometry, COARSE, 1, tau),
    ]
    assert found["fine_loss"] == pytest.approx(expected[1], rel=1e-6)
    assert found["loss"] == pytest.approx(sum(expected), rel=1e-6)
