"""The means and the spread of a teacher's features over images, by which they are standardised.

The mean is taken off each dimension, and all are divided by one number, so that angles between what is left stay as
they are (PHI-S: Ranzinger et al., 2024. https://arxiv.org/abs/2410.01680).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_backbones.data import Images
from ssl_backbones.models.images_ahead import BATCH, ahead, usual_device
from ssl_backbones.models.teacher import Teacher
from ssl_backbones.products import network_products
from ssl_backbones.views import permutation

MOST = 512
"""Images that stand for all."""


@final
class Moments:
    """The mean and the spread of rows (N, D), as they come."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, torch.zeros(()), torch.zeros(())

    @staticmethod
    def over(parts: Iterable[NDArray[np.float16]]) -> Moments:
        """The moments of the rows of all parts (n, D), without those of zeros, which stand for no image."""
        moments = Moments()
        for part in parts:
            rows = torch.from_numpy(np.array(part, np.float64))
            moments.add(rows[(rows != 0).any(dim=1)])
        return moments

    def add(self, rows: Tensor) -> None:
        """Take rows (n, D) into account."""
        rows = rows.double().cpu()
        self.count, self.total = self.count + len(rows), self.total + rows.sum(0)
        self.squares = self.squares + rows.square().sum(0)

    @property
    def mean(self) -> Tensor:
        """(D,)"""
        return self.total / max(self.count, 1)

    @property
    def scale(self) -> float:
        """The root of the mean over dimensions of their variance; 1 where nothing varies."""
        variance = (self.squares / max(self.count, 1) - self.mean.square()).clamp(min=0).mean()
        return float(variance.sqrt()) or 1.0


def looked_over(teacher: Teacher, side: int, images: Images) -> tuple[Moments, Moments | None]:
    """The moments of a teacher's features of some images, and of the cells of its maps where it has any."""
    rows = permutation(0, 0, len(images))[:MOST]
    crop, device = teacher.crop(side), usual_device()
    moments, of_maps = Moments(), Moments()
    for levels, readable in ahead(crop, images, np.split(rows, range(BATCH, len(rows), BATCH))):
        with network_products(device):
            seen = teacher.look(crop.on_device(levels.to(device)))
        there = readable.bool().to(device)
        moments.add(seen.features[there])
        if seen.maps is not None:
            of_maps.add(seen.maps[there].movedim(1, -1).flatten(0, -2))
    return moments, of_maps if of_maps.count else None
