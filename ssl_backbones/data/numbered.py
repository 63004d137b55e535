"""Batches that say what they show: for methods that keep something of each image, or know its label."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ssl_backbones.data.batches import Batch, Batches, Request
from ssl_backbones.data.images import Images
from ssl_backbones.views.transform import Transform


class NumberedBatches(Batches):
    """Batches of a pair: what the transform makes, and a number of each image shown, (B,) int64.

    The number is that of `numbers` (N,), or the image's row. Where a photo cannot be read, it is that of the photo
    shown in its place.
    """

    def __init__(self, images: Images, transform: Transform, seed: int, numbers: np.ndarray | None = None) -> None:
        super().__init__(images, transform, seed)
        self.numbers = np.arange(len(images)) if numbers is None else np.asarray(numbers)

    def __getitem__(self, request: Request) -> Batch:
        unreadable: dict[str, str] = {}
        found = [self.find(int(index), unreadable) for index in request.indices]
        rows, photos = np.array([row for row, _ in found], dtype=np.int64), [photo for _, photo in found]
        parameters = self.transform.draw(self.seed, request.epoch, request.indices)
        shown = self.transform.on_host(photos, parameters)
        return Batch((shown, torch.from_numpy(self.numbers[rows].astype(np.int64))), unreadable)

    def on_device(self, content: Any) -> tuple[Any, torch.Tensor]:
        """The method's input, and the numbers (B,)."""
        shown, numbers = content
        return self.transform.on_device(shown), numbers
