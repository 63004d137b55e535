"""The alignment maps of LEWEL. Huang et al., 2022, figure 5. https://arxiv.org/abs/2203.14898"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from ssl_backbones.visualizers.grid import grid
from ssl_backbones.visualizers.inspection import prepared, untouched, unwrapped
from ssl_backbones.visualizers.overlay import overlay, stretched


@runtime_checkable
class HasAlignmentMaps(Protocol):
    """A method that aggregates features by maps of its own."""

    def alignment_maps(self, images: Tensor) -> Tensor:
        """Maps (B, n, h, w) of normalised images (B, 3, H, W); each sums to one over its positions."""


@torch.no_grad()
def alignment_maps(method: nn.Module | str | os.PathLike[str], images: Tensor, k: int | None = None) -> Tensor:
    """The maps (B, n, h, w) of a method in evaluation mode on normalised images (B, 3, H, W); a map sums to one.

    Instead of a method, the folder of the run that trained one will do. With `k`, the most distinct maps over all the
    images. Every part of the method is left in the mode it was in.
    """
    if isinstance(method, str | os.PathLike):
        from ssl_backbones.methods.from_run import method_from_run

        method = method_from_run(method)
    method = unwrapped(method)
    mapped = require_alignment_maps(method)
    with untouched(method), torch.no_grad():
        maps = mapped.alignment_maps(prepared(method, images))
    return maps if k is None else maps[:, most_distinct(maps.cpu(), k)]


def require_alignment_maps(method: nn.Module) -> HasAlignmentMaps:
    """The method; TypeError for one without maps."""
    if not isinstance(method, HasAlignmentMaps):
        raise TypeError(
            f"{type(method).__name__} has no alignment maps; LewelB, LewelM and Aligned do, and `grad_cam` looks into "
            "any network."
        )
    return method


def most_distinct(maps: npt.ArrayLike, k: int) -> list[int]:
    """The k maps of (n, h, w), or of a batch (B, n, h, w), that say most: sharp ones that differ from one another.

    First the sharpest, by its peak over its entropy; then, one by one, the map whose closest among the chosen, by
    cosine similarity, is farthest. Ties go to the lower index.
    ValueError for other shapes, or a k that is not from 1 to n.
    """
    values = np.asarray(maps, dtype=np.float64)
    if values.ndim not in (3, 4) or not 1 <= k <= values.shape[-3]:
        raise ValueError(f"k is {k} of maps {values.shape}; give (n, h, w) or (B, n, h, w), and k from 1 to n.")
    values = values.reshape(-1, *values.shape[-3:-2], values.shape[-2] * values.shape[-1])
    entropy = -(values * np.log(values.clip(1e-30))).sum(-1)
    sharpness = (values.max(-1) / entropy.clip(1e-12)).mean(0)
    directions = np.concatenate(list(values), axis=-1)
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True).clip(1e-12)
    chosen = [int(sharpness.argmax())]
    closest = directions @ directions[chosen[0]]
    while len(chosen) < k:
        closest[chosen[-1]] = np.inf
        chosen.append(int(closest.argmin()))
        closest = np.maximum(closest, directions @ directions[chosen[-1]])
    return chosen


def alignment_figure(images: Sequence[Image.Image], maps: Tensor, *, k: int = 6, side: int = 128) -> Image.Image:
    """A row for each image: the image, then k of its maps (B, n, h, w) laid over it, the same map down a column.

    The maps are the most distinct over all images; each is stretched to its own range, so that colour tells where and
    not how much. Images are drawn with `side` pixels to the longer side; they are what the network saw, cropped alike.
    """
    values = checked_values(images, maps)
    chosen = most_distinct(values, min(k, values.shape[1]))
    rows = [
        [image, *painted] for image, painted in zip(*drawn(images, stretched(values)[:, chosen], side), strict=True)
    ]
    return grid(rows, titles=["image", *(f"map {index}" for index in chosen)])


def checked_values(images: Sequence[Image.Image], maps: Tensor) -> np.ndarray:
    """Maps (B, n, h, w) as numbers, one B for each image."""
    if maps.ndim != 4 or len(maps) != len(images):
        raise ValueError(f"maps are {tuple(maps.shape)} for {len(images)} images; give (B, n, h, w), B for the images.")
    values: np.ndarray = maps.detach().cpu().double().numpy()
    return values


def drawn(
    images: Sequence[Image.Image], heats: np.ndarray, side: int
) -> tuple[list[Image.Image], list[list[Image.Image]]]:
    """The images with `side` pixels to the longer side, and each with its heat maps (B, k, h, w) laid over it."""
    shown, painted = [], []
    for image, heat in zip(images, heats, strict=True):
        scale = side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        large = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        grey = large.convert("L")  # so that every colour in an overlay is the map's
        shown.append(large)
        painted.append([overlay(grey, one, alpha=0.6) for one in heat])
    return shown, painted
