"""The nearest neighbours of images among others, by a network's features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import normalize

from ssl_backbones.visualizers.grid import grid


@torch.no_grad()
def nearest(features: Tensor, queries: Sequence[int], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k other images (Q, k) nearest to each of some images among features (N, D), and their cosine similarities.

    The nearest stand first; ties go to the lower index. ValueError for a k that is not from 1 to N - 1.
    """
    if features.ndim != 2 or not 1 <= k < len(features):
        raise ValueError(f"k is {k} for features {tuple(features.shape)}; give (N, D), and k from 1 to less than N.")
    asked = torch.as_tensor(np.asarray(queries, dtype=np.int64), device=features.device)
    unit = normalize(features.float(), dim=1)
    similarity = unit[asked] @ unit.T
    similarity[torch.arange(len(asked)), asked] = -torch.inf
    sorted_, order = similarity.sort(dim=1, descending=True, stable=True)
    return order[:, :k].cpu().numpy(), sorted_[:, :k].cpu().numpy()


def neighbour_sheet(
    images: Sequence[Image.Image], features: Tensor, queries: Sequence[int], *, k: int = 6, side: int = 96
) -> Image.Image:
    """A row for each of some images: the image, then the k others nearest to it by features (N, D).

    ValueError where there is not one feature an image.
    """
    if len(images) != len(features):
        raise ValueError(f"there are {len(images)} images and {len(features)} features; give one for each image.")
    found, _ = nearest(features, queries, k)
    rows = [
        [square(images[index], side) for index in (query, *near)]
        for query, near in zip(queries, found.tolist(), strict=True)
    ]
    return grid(rows, titles=["image", "nearest", *map(str, range(2, k + 1))])


def square(image: Image.Image, side: int) -> Image.Image:
    """The middle of an image in RGB, side x side."""
    return ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
