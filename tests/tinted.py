"""Images of one colour each, and a backbone that tells the colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ssl_backbones.data import Batches, Images, UnreadableImageError
from ssl_backbones.views import CenterCrop

CPU = torch.device("cpu")


class Tints(Images):
    """Images of one colour each; the labels are given."""

    def __init__(self, count: int, labels: Sequence[int] | None = None, unreadable: Sequence[int] = ()) -> None:
        self.keys = [f"{number:02}.png" for number in range(count)]
        self.labels = None if labels is None else np.array(labels, np.int64)
        self.classes = ("red", "green") if labels is not None else ()
        self.fingerprint = f"{count} {labels}"
        self.unreadable = unreadable

    def __getitem__(self, index: int) -> Image.Image:
        if index in self.unreadable:
            raise UnreadableImageError(f"{self.keys[index]} is torn")
        return Image.new("RGB", (8, 8), (index, 255 - index, (index * 37) % 256))


def tints(count: int, **more: Any) -> Batches:
    return Batches(Tints(count, **more), CenterCrop(8), seed=0)


class Colours(nn.Module):
    """A backbone whose features are the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.norm(images).mean((2, 3))
        return features
