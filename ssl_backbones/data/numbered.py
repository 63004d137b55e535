"""Batches with what is known of each image: its row, its label, or what another network sees in it."""

from __future__ import annotations

from typing import Any, Protocol, final

import numpy as np
import torch

from ssl_backbones.data.batches import BatchDataset
from ssl_backbones.data.images import Images
from ssl_backbones.data.parts import Request
from ssl_backbones.views.transform import Transform


class Numbers(Protocol):
    """A number or a row of numbers of each of N images, in memory or on a disk."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """Those of the images at the rows (B,): an array (B, ...)."""


@final
class NumberedBatches(BatchDataset):
    """Batches of a pair: the output of the transform, and the number of each image shown, (B,), or its numbers (B, D).

    They are those of `numbers`, or the images' rows. For an image that cannot be read, they are those of the image
    shown in its place.
    """

    def __init__(self, images: Images, transform: Transform, seed: int, numbers: Numbers | None = None) -> None:
        super().__init__(images, transform, seed)
        self.numbers: Numbers = np.arange(len(images)) if numbers is None else numbers

    def content(self, request: Request, unreadable: dict[str, str]) -> tuple[Any, torch.Tensor]:
        """The images of the request, as the transform makes them on the host, and their numbers (B, ...)."""
        rows, shown = self.shown(request, unreadable)
        return shown, torch.from_numpy(self.numbers[rows])

    def on_device(self, content: Any) -> tuple[Any, torch.Tensor]:
        """The method's input, and the numbers (B, ...)."""
        shown, numbers = content
        return self.transform.on_device(shown), numbers
