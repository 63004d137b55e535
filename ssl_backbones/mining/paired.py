"""Batches in which each image comes with views of its partners."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_backbones.data.batches import Batch, Batches, Request
from ssl_backbones.data.images import Images, UnreadableImageError
from ssl_backbones.views import MultiView


class PairedBatches(Batches):
    """Batches of views: two of each image, then one of each of its partners, every one drawn for itself.

    `partners` (N, P) are rows of the images, and the transform has 2 + P policies. With the views come `numbers` (N,)
    of the images shown, (B, 1 + P): of the image and its partners. In place of a partner that cannot be read stands the
    image itself; in place of an image that cannot, another with that one's partners.
    """

    def __init__(
        self, images: Images, transform: MultiView, seed: int, partners: np.ndarray, numbers: np.ndarray
    ) -> None:
        super().__init__(images, transform, seed)
        self.single = [replace(transform, policies=(policy,)) for policy in transform.policies]
        self.partners = partners
        self.numbers = numbers

    def __getitem__(self, request: Request) -> Batch:
        unreadable: dict[str, str] = {}
        shown = [self.family(int(index), unreadable) for index in request.indices]
        parameters = self.transform.draw(self.seed, request.epoch, request.indices)
        views = []
        for view, (transform, drawn) in enumerate(zip(self.single, parameters, strict=True)):
            photos = [family[max(0, view - 1)][1] for family in shown]
            views.append(transform.on_host(photos, (drawn,)))
        rows = np.array([[row for row, _ in family] for family in shown])
        return Batch((views, torch.from_numpy(self.numbers[rows])), unreadable)

    def family(self, index: int, unreadable: dict[str, str]) -> list[tuple[int, Image.Image]]:
        """The image at an index and its partners, each with its row."""
        row, photo = self.find(index, unreadable)
        family = [(row, photo)]
        for partner in map(int, self.partners[row]):
            try:
                family.append((partner, self.images[partner]))
            except UnreadableImageError as error:
                unreadable[self.images.keys[partner]] = str(error)
                family.append((row, photo))
        return family

    def on_device(self, content: Any) -> tuple[list[Tensor], Tensor]:
        """The normalised views (B, 3, S, S), and the numbers."""
        views, numbers = content
        return [transform.on_device(view)[0] for transform, view in zip(self.single, views, strict=True)], numbers
