"""Features of many images, put together block by block in memory that the processes of a machine share."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor

from ssl_backbones.data import Images
from ssl_backbones.host_memory import HostArray

Block = tuple[Tensor, dict[str, str]]
"""Features (n, D) of some images, and what of them could not be read: key to reason."""


@final
class FeatureRows:
    """The rows of images, put together block by block in memory that the processes of a machine share."""

    def __init__(self, images: Images, chosen: np.ndarray, wanted: np.ndarray | None) -> None:
        """Rows for the images at `chosen` (N,), or for those of them that are `wanted` (N,) bool and can be read."""
        self.images, self.chosen, self.wanted = images, chosen, wanted
        self.readable = np.ones(len(chosen), bool)
        self.seen = self.filled = 0
        self.array: HostArray | None = None

    def add(self, block: Block) -> None:
        """Add the features (n, D) of the next images."""
        features, lost = block
        here = slice(self.seen, self.seen + len(features))
        if lost:
            self.readable[here] = [self.images.keys[row] not in lost for row in self.chosen[here]]
        if self.array is None:
            count = len(self.chosen) if self.wanted is None else int(self.wanted.sum())
            self.array = HostArray((count, *features.shape[1:]))
        rows = features.numpy()
        if self.wanted is not None:
            rows = rows[self.wanted[here] & self.readable[here]]
        self.array.write(self.filled, rows)
        self.seen, self.filled = here.stop, self.filled + len(rows)

    def finished(self) -> Tensor:
        """The rows (n, D)."""
        return torch.empty(0) if self.array is None else torch.from_numpy(self.array.finished()[: self.filled])
