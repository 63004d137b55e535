"""Batches with a number of each image: for methods that keep something of each, or know its label."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch

from ssl_backbones.data.batches import BatchDataset, Request
from ssl_backbones.data.images import Images
from ssl_backbones.views.transform import Transform


@final
class NumberedBatches(BatchDataset):
    """Batches of a pair: the output of the transform, and a number of each image shown, (B,) int64.

    The number is that of `numbers` (N,), or the image's row. For an image that cannot be read, it is that of the image
    shown in its place.
    """

    def __init__(self, images: Images, transform: Transform, seed: int, numbers: np.ndarray | None = None) -> None:
        super().__init__(images, transform, seed)
        self.numbers = np.arange(len(images)) if numbers is None else np.asarray(numbers)

    def content(self, request: Request, unreadable: dict[str, str]) -> tuple[Any, torch.Tensor]:
        """The images of the request, as the transform makes them on the host, and their numbers (B,)."""
        rows, images = self.read_all(request.indices, unreadable)
        return self.transformed(request, images), torch.from_numpy(self.numbers[rows].astype(np.int64))

    def on_device(self, content: Any) -> tuple[Any, torch.Tensor]:
        """The method's input, and the numbers (B,)."""
        shown, numbers = content
        return self.transform.on_device(shown), numbers
