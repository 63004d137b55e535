"""Alignments of two views side by side: a point or map of the first, and its counterpart in the second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image
from torch import Tensor

from ssl_backbones.visualizers.grid import grid
from ssl_backbones.visualizers.overlay import overlay, stretched


@runtime_checkable
class HasPixelEmbeddings(Protocol):
    """A method that embeds the positions of a view."""

    def pixel_embeddings(self, images: Tensor) -> Tensor:
        """The embeddings (B, D, h, w) of the positions of normalised images (B, 3, H, W)."""


@dataclass(frozen=True)
class Shown:
    """An alignment of some pairs of views, as a figure shows it."""

    title: str
    maps: Mapping[int, tuple[Tensor, Tensor]]
    """By an image's place, its weights (h, w) in the first view and in the second."""


def correspondence_figure(
    pairs: Mapping[int, tuple[Image.Image, Image.Image]], shown: Sequence[Shown], side: int = 128
) -> Image.Image:
    """Two rows for each pair of views, the first view's above the second's: the view, then each alignment laid over it.

    Maps are stretched to their own range, and images drawn with `side` pixels. The columns are numbered from 1 in the
    order of the alignments. ValueError for no pair.
    """
    if not pairs:
        raise ValueError("there are no pairs of views with an object in both; give at least one.")
    rows = []
    for at, views in pairs.items():
        for number, view in enumerate(views):
            large = view.resize((side, side), Image.Resampling.BICUBIC)
            grey = large.convert("L")
            maps = [stretched(alignment.maps[at][number].numpy()) for alignment in shown]
            rows.append([large, *(overlay(grey, heat, alpha=0.6) for heat in maps)])
    titles = ["view", *(str(number) for number in range(1, len(shown) + 1))]
    return grid(rows, titles=titles, row_labels=["first", "second"] * len(pairs))
