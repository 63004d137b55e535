"""The images of each batch as a function of counters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ssl_backbones.data.batches import BatchDataset
from ssl_backbones.data.parts import Exchange, Request
from ssl_backbones.data.shards import Shards
from ssl_backbones.distributed import rank, world_size
from ssl_backbones.views.randomness import permutation, seed_of


@dataclass(frozen=True)
class Order:
    """The order in which a rank sees the images: a pure function of (seed, epoch), with nothing to save or restore.

    Step s of an epoch is the s-th run of `batch_size` images of the epoch's order: a permutation, which goes from shard
    to shard where the images lie in shards. What does not fill a batch is left to another epoch. A step is cut into
    `accumulation` micro-batches and those among the ranks, so that the ranks' parts of the micro-batches, one
    micro-batch after another, make up the step in order.
    """

    images: int
    batch_size: int
    """Over all ranks and micro-batches."""
    seed: int
    rank: int = 0
    world_size: int = 1
    accumulation: int = 1
    shards: Shards | None = None

    def __post_init__(self) -> None:
        parts = self.world_size * self.accumulation
        if self.batch_size < 1 or self.batch_size % parts:
            raise ValueError(
                f"a batch of {self.batch_size} images cannot be shared evenly by {self.world_size} processes x "
                f"{self.accumulation} accumulation steps; choose a multiple of {parts}"
            )
        if self.images < self.batch_size:
            raise ValueError(
                f"the data has {self.images} images and one batch takes {self.batch_size}; "
                f"choose a batch size of at most {self.images}, or add images"
            )

    @property
    def steps_per_epoch(self) -> int:
        return self.images // self.batch_size

    def requests(self, epoch: int, start_step: int = 0) -> Iterator[Request]:
        """Yield the requests of this rank in an epoch from a step on: `accumulation` requests a step."""
        order = self.of_epoch(epoch)
        soon = self.shards.soon(self.seed, epoch, order) if self.shards else None
        for step in range(start_step, self.steps_per_epoch):
            shards = soon(step * self.batch_size) if soon else None
            for micro_batch in range(self.accumulation):
                exchange = self.exchange(order, epoch, step, micro_batch)
                yield Request(epoch, self.indices(order, step, micro_batch), exchange, shards)

    def of_epoch(self, epoch: int) -> np.ndarray:
        """The images (N,) in the order of an epoch, over all ranks."""
        if self.shards is not None:
            return self.shards.order(self.seed, epoch)
        return permutation(self.seed, epoch, self.images)

    def indices(self, order: np.ndarray, step: int, micro_batch: int = 0) -> np.ndarray:
        """This rank's images of a micro-batch, out of the epoch's permutation (N,)."""
        return self.share(self.micro_batch(order, step, micro_batch))

    def exchange(self, order: np.ndarray, epoch: int, step: int, micro_batch: int = 0) -> Exchange:
        """This rank's share of a micro-batch that is shuffled: by (seed, epoch, step, micro-batch) and nothing else."""
        everyone = self.micro_batch(order, step, micro_batch)
        shuffled = permutation(seed_of(self.seed, epoch, step, micro_batch), 0, len(everyone))
        return Exchange(self.share(everyone[shuffled]), np.argsort(shuffled))

    def global_batch(self, step: int) -> np.ndarray:
        """The images (batch_size,) of a step over all ranks, counted from 0 through all epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch_size
        return self.of_epoch(epoch)[start : start + self.batch_size]

    def keys_of(self, step: int, keys: Sequence[str]) -> list[str]:
        """The keys of the images of a step over all ranks, of those of all images."""
        return [keys[int(index)] for index in self.global_batch(step)]

    def micro_batch(self, order: np.ndarray, step: int, micro_batch: int) -> np.ndarray:
        """The images of a micro-batch over all ranks."""
        size = self.batch_size // self.accumulation
        start = step * self.batch_size + micro_batch * size
        return order[start : start + size]

    def share(self, everyone: np.ndarray) -> np.ndarray:
        """This rank's part of what is shared by all."""
        size = len(everyone) // self.world_size
        return everyone[self.rank * size : (self.rank + 1) * size]


class Requests:
    """Some steps of a run, counted from 0 through all epochs, as a sampler for `DataLoader(batch_size=None)`."""

    def __init__(self, order: Order, first: int, last: int) -> None:
        """From step `first` on, up to and without step `last`."""
        self.order, self.first, self.last = order, first, last

    def __iter__(self) -> Iterator[Request]:
        steps = self.order.steps_per_epoch
        for epoch in range(self.first // steps, -(-self.last // steps)):
            start, end = max(0, self.first - epoch * steps), min(steps, self.last - epoch * steps)
            yield from islice(self.order.requests(epoch, start), max(0, end - start) * self.order.accumulation)

    def __len__(self) -> int:
        return max(0, self.last - self.first) * self.order.accumulation


class Epochs:
    """A sampler for a training loop of one's own, another epoch each time that it is gone through.

    `DataLoader(dataset, batch_size=None, sampler=Epochs(dataset, batch_size))`, where `dataset` is what a method's
    `dataset` gives, yields a Batch for each step: the share of this process, in an order that every epoch has anew.
    """

    def __init__(self, dataset: BatchDataset, batch_size: int, first: int = 0) -> None:
        """`batch_size` counts the images of all processes; `first` is the number of the epoch to begin with."""
        self.dataset, self.batch_size, self.epoch = dataset, batch_size, first

    @property
    def order(self) -> Order:
        """The order for this process among all there are now; ValueError for a batch that they cannot share."""
        data = self.dataset
        return Order(len(data), self.batch_size, data.seed, rank(), world_size(), shards=data.images.shards)

    def set_epoch(self, epoch: int) -> None:
        """Go on with an epoch, as Lightning says it where a run is resumed."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Request]:
        requests = self.order.requests(self.epoch)
        self.epoch += 1
        yield from requests

    def __len__(self) -> int:
        return self.order.steps_per_epoch
