"""Whole batches, made in a worker from counters alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd
from typing import Any

import numpy as np
from PIL import Image

from ssl_backbones.data.images import Images, UnreadableImageError
from ssl_backbones.views.transform import Transform

ATTEMPTS = 100


@dataclass(frozen=True)
class Exchange:
    """Another share of a global batch than a process's own: all shares together are all its images, shuffled."""

    indices: np.ndarray
    """(B,): the images of the share."""
    places: np.ndarray
    """(G,): where each image of the global batch stands among the shares of all processes in rank order."""


@dataclass(frozen=True)
class Request:
    """A sampler's request to a worker: the images of one batch, in one epoch."""

    epoch: int
    indices: np.ndarray
    exchange: Exchange | None = None
    """The images of another share of the global batch, for views that are not of the process's own."""


@dataclass(frozen=True)
class Batch:
    """A worker's answer: the transform's output on the host, and the images it had to leave out."""

    content: Any
    unreadable: dict[str, str] = field(default_factory=dict)
    """Key to reason."""


class Batches:
    """A dataset for `DataLoader(..., batch_size=None)`: asked for a Request, answers with a Batch."""

    def __init__(self, images: Images, transform: Transform, seed: int) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        """The number of images, not of batches."""
        return len(self.images)

    def __getitem__(self, request: Request) -> Batch:
        unreadable: dict[str, str] = {}
        photos = [self.read(int(index), unreadable) for index in request.indices]
        parameters = self.transform.draw(self.seed, request.epoch, request.indices)
        return Batch(self.transform.on_host(photos, parameters), unreadable)

    def on_device(self, content: Any) -> Any:
        """The content of a Batch, moved to the network's device, as the method takes it."""
        return self.transform.on_device(content)

    def read(self, index: int, unreadable: dict[str, str]) -> Image.Image:
        """The photo at an index, or another that can be read."""
        return self.find(index, unreadable)[1]

    def find(self, index: int, unreadable: dict[str, str]) -> tuple[int, Image.Image]:
        """The photo at an index, or another that can be read, with its own index: the same in every run and worker.

        The others lie far apart, for photos that cannot be read lie together: a folder's, a disk's. After ATTEMPTS of
        them it is not the photos that are at fault. UnreadableImageError ends it.
        """
        count = len(self.images)
        reason = ""
        for attempt in range(min(count, ATTEMPTS)):
            at = (index + attempt * stride(count)) % count
            try:
                return at, self.images[at]
            except UnreadableImageError as error:
                unreadable[self.images.keys[at]] = reason = str(error)
        raise UnreadableImageError(
            f"{min(count, ATTEMPTS)} of {count} photos in a row cannot be read, at last: {reason}"
        )


def stride(count: int) -> int:
    """About 0.618 of the count, and without a divisor in common with it, so that steps of it come to all."""
    return next(step for step in range(max(1, round(0.618 * count)), count + 2) if gcd(step, count) == 1)
