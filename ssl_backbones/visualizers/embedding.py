"""Features as places on a plane, with a number for how far the picture can be trusted.

t-SNE: van der Maaten and Hinton, 2008. UMAP: McInnes et al., 2018. https://arxiv.org/abs/1802.03426
Trustworthiness: Venna and Kaski, 2001.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

from ssl_backbones.refusal import Refusal

Projection = Literal["pca", "tsne", "umap"]

NEIGHBOURS = 10
"""Neighbours of an image that the trustworthiness asks for."""
KEPT = 50
"""Principal components that t-SNE and UMAP see: distances hardly change, and they become much faster."""
AT_ONCE = 512
"""Images whose distances to all others are looked at together."""
FEWEST = 5
"""Images below which there is nothing to lay out."""


class MissingExtraError(Refusal, ImportError):
    """A picture that needs an optional library, and how to get it."""


@dataclass(frozen=True)
class Embedding:
    """The positions of images on a plane."""

    places: np.ndarray
    """(N, 2) float64."""
    method: Projection
    """The projection that made them."""
    trustworthiness: float
    """In [0, 1]: 1 when every neighbour on the plane is one among the features, about 0.5 for places by chance."""
    neighbours: int
    """Neighbours of each image that were asked for."""


def embed_2d(features: Tensor | np.ndarray, method: Projection = "pca", *, seed: int = 0) -> Embedding:
    """The places of features (N, D) on a plane, the same for the same seed.

    "pca" is exact and needs nothing; "tsne" needs scikit-learn, "umap" needs umap-learn, or MissingExtraError.
    ValueError for another method.
    """
    if method not in get_args(Projection):
        raise ValueError(f"method is {method!r}, but must be one of {', '.join(get_args(Projection))}.")
    rows = as_rows(features)
    if method == "pca":
        places = principal_components(rows, 2)
    else:
        reduced = principal_components(rows, KEPT)
        places = tsne(reduced, seed) if method == "tsne" else umap(reduced, seed)
    k = min(NEIGHBOURS, (len(rows) - 1) // 2)
    return Embedding(places, method, trustworthiness(rows, places, k), k)


def as_rows(features: Tensor | np.ndarray) -> np.ndarray:
    """Features (N, D) in float64; ValueError for what cannot be laid out."""
    rows = features.detach().cpu().double().numpy() if isinstance(features, Tensor) else np.asarray(features, float)
    if rows.ndim != 2 or len(rows) < FEWEST or not rows.shape[1]:
        raise ValueError(f"features are {tuple(rows.shape)}; give (N, D) with N of at least {FEWEST}.")
    if not np.isfinite(rows).all():
        raise ValueError("features hold NaN or infinity, where finite numbers are needed; look at the network's loss.")
    return rows


def principal_components(rows: np.ndarray, count: int) -> np.ndarray:
    """The scores (N, count) of rows (N, D) on their principal components, zero where there are fewer.

    A component points where its largest score is positive, so that the picture is not mirrored by chance.
    """
    left, sigma, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    scores = (left * sigma)[:, :count]
    largest = scores[np.abs(scores).argmax(0), np.arange(scores.shape[1])]
    scores = scores * np.where(largest < 0, -1.0, 1.0)
    return np.pad(scores, ((0, 0), (0, max(0, count - scores.shape[1])))) if count == 2 else scores


def tsne(rows: np.ndarray, seed: int) -> np.ndarray:
    """The places (N, 2) that t-SNE finds, begun at the principal components."""
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise MissingExtraError(
            "t-SNE needs scikit-learn: pip install 'ssl-backbones[viz]', or take method='pca', which needs nothing"
        ) from error
    perplexity = min(30.0, (len(rows) - 1) / 3)
    fitted = TSNE(perplexity=perplexity, init=beginning(rows, 1e-4), random_state=seed % 2**32).fit_transform(rows)
    return np.asarray(fitted, float)


def umap(rows: np.ndarray, seed: int) -> np.ndarray:
    """The places (N, 2) that UMAP finds, begun at the principal components."""
    learn = umap_learn()
    near = min(15, len(rows) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of its own single thread, which is what makes it repeatable
        model = learn.UMAP(n_neighbors=near, init=beginning(rows, 10.0), random_state=seed % 2**32, n_jobs=1)
        return np.asarray(model.fit_transform(rows), float)


def umap_learn() -> Any:
    """The module `umap`, or MissingExtraError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its dependencies warn of one another
            import umap as learn
    except ImportError as error:
        raise MissingExtraError(
            "UMAP needs umap-learn: pip install umap-learn, or take method='tsne' or 'pca'"
        ) from error
    return learn


def beginning(rows: np.ndarray, scale: float) -> np.ndarray:
    """The first two components (N, 2) of rows, their larger deviation brought to `scale`, as float32."""
    places = principal_components(rows, 2)
    deviation = places.std(0).max()
    return (places * (scale / deviation if deviation > 0 else 0)).astype(np.float32)


def trustworthiness(rows: np.ndarray, places: np.ndarray, k: int) -> float:
    """The trustworthiness of a plane (N, 2) for the rows (N, D): its k nearest that are near there, weighed by rank.

    1 - 2 / (N k (2N - 3k - 1)) sum (rank - k), over neighbours on the plane that are not among the k nearest rows.
    ValueError for a k that is not from 1 to below N / 2.
    """
    count = len(rows)
    if not 1 <= k < count / 2:
        raise ValueError(f"k is {k} for {count} images; give at least 1 and less than half of them.")
    excess = 0
    for start in range(0, count, AT_ONCE):
        some = np.arange(start, min(start + AT_ONCE, count))
        ranks = neighbour_order(rows, some).argsort(1)  # 0 is the image itself, 1 the nearest
        near = neighbour_order(places, some)[:, 1 : k + 1]
        excess += (np.take_along_axis(ranks, near, 1) - k).clip(0).sum()
    return float(1 - 2 / (count * k * (2 * count - 3 * k - 1)) * excess)


def neighbour_order(rows: np.ndarray, some: np.ndarray) -> np.ndarray:
    """For each of some rows (n,) of all (N, D), all (n, N) from the nearest on, itself first; ties by the index."""
    squares = (rows**2).sum(1)
    distances = squares[some, None] + squares - 2 * rows[some] @ rows.T
    distances[np.arange(len(some)), some] = -np.inf
    order: np.ndarray = distances.argsort(1, kind="stable")
    return order
