"""Whole batches, made in a worker from counters alone."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from math import gcd
from typing import Any, NamedTuple, Self, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_backbones.data.images import Images, UnreadableImageError
from ssl_backbones.data.parts import Request, joined, part_of
from ssl_backbones.views.reduction import Reduction, unreduced, using_reduction
from ssl_backbones.views.transform import Transform

ATTEMPTS = 100
HELD = 2**26
"""Pixels of decoded images that are held at once, but for a batch that takes them whole: 256 MB as Pillow has them."""


class Batch(NamedTuple):
    """A worker's answer: the transform's output on the host, and the images it had to leave out."""

    content: Any
    """The transform's output on the host."""
    unreadable: dict[str, str]
    """Key to reason."""


class BatchDataset(ABC):
    """A dataset for `DataLoader(..., batch_size=None)`: asked for a Request, answers with a Batch.

    Subclasses are final.
    """

    def __init__(self, images: Images, transform: Transform, seed: int) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        """The number of images, not of batches."""
        return len(self.images)

    def __getitem__(self, request: Request) -> Batch:
        unreadable: dict[str, str] = {}
        if request.soon is not None:
            self.images.soon(request.soon)
        return Batch(self.content(request, unreadable), unreadable)

    @abstractmethod
    def content(self, request: Request, unreadable: dict[str, str]) -> Any:
        """The content of a batch on the host; images that cannot be read are entered in `unreadable`, key to reason."""

    def on_device(self, content: Any) -> Any:
        """The content of a Batch, moved to the network's device, as the method takes it."""
        return self.transform.on_device(content)

    @property
    def decodes_coarsely(self) -> bool:
        """True if large JPEGs are decoded no finer than their views need: of all their pixels views are other ones."""
        (reduction,) = self.transform.reductions(self.seed, 0, np.zeros(1, np.int64))
        return reduction is not unreduced and not self.images.whole

    def at(self, side: int) -> Self:
        """The same batches with views of another side, drawn alike; ValueError for views that have none."""
        other = copy.copy(self)
        other.transform = self.transform.at(side)
        return other

    def transformed(self, request: Request, images: Sequence[Image.Image]) -> Any:
        """The output of the transform on the host, of the images (B,) of a request."""
        return self.transform.on_host(images, self.transform.draw(self.seed, request.epoch, request.indices))

    def shown(self, request: Request, unreadable: dict[str, str]) -> tuple[NDArray[np.int64], Any]:
        """Rows (B,) of the images of a batch, and what the transform makes of them on the host.

        Of large images some are read and transformed at a time: whole photos would take the memory.
        """
        rows: list[int] = []
        contents: list[Any] = []
        counts: list[int] = []
        images: list[Image.Image] = []
        held, most = 0, math.inf if self.transform.keeps_images else HELD
        for row, image in self.each(request, unreadable):
            rows.append(row)
            images.append(image)
            held += image.width * image.height
            if held >= most or len(rows) == len(request.indices):
                contents.append(self.transformed(part_of(request, np.arange(sum(counts), len(rows))), images))
                counts.append(len(images))
                images, held = [], 0
        return np.array(rows, np.int64), contents[0] if len(contents) == 1 else joined(contents, counts)

    def each(self, request: Request, unreadable: dict[str, str]) -> Iterator[tuple[int, Image.Image]]:
        """Row and image of each of a batch: those at the indices (B,), and others for what cannot be read.

        They are decoded as coarsely as what is drawn for those indices allows.
        """
        reductions = self.transform.reductions(self.seed, request.epoch, request.indices)
        for index, reduction in zip(request.indices.tolist(), reductions, strict=True):
            yield self.read(index, unreadable, reduction)

    def read_all(self, request: Request, unreadable: dict[str, str]) -> tuple[NDArray[np.int64], list[Image.Image]]:
        """Rows (B,) and images of a batch, as `each` reads them."""
        found = list(self.each(request, unreadable))
        return np.array([row for row, _ in found], np.int64), [image for _, image in found]

    def read(self, index: int, unreadable: dict[str, str], reduction: Reduction = unreduced) -> tuple[int, Image.Image]:
        """Row and image at an index, or of another that can be read: the same in every run and worker.

        The others lie far apart, for images that cannot be read lie together: a folder's, a disk's. After ATTEMPTS of
        them it is not the images that are at fault: UnreadableImageError.
        """
        count = len(self.images)
        reason = ""
        for attempt in range(min(count, ATTEMPTS)):
            at = (index + attempt * stride(count)) % count
            try:
                with using_reduction(reduction):
                    return at, self.images[at]
            except UnreadableImageError as error:
                unreadable[self.images.keys[at]] = reason = str(error)
        raise UnreadableImageError(
            f"{min(count, ATTEMPTS)} of {count} images in a row cannot be read, at last: {reason}"
        )


@final
class Batches(BatchDataset):
    """Batches of images, transformed."""

    def content(self, request: Request, unreadable: dict[str, str]) -> Any:
        """The images of the request, as the transform makes them on the host."""
        return self.shown(request, unreadable)[1]


def stride(count: int) -> int:
    """About 0.618 of the count, and without a divisor in common with it, so that steps of it come to all."""
    return next(step for step in range(max(1, round(0.618 * count)), count + 2) if gcd(step, count) == 1)
