"""The order of an epoch over images that lie in shards: in two levels, so that shards are read one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ssl_backbones.views import permutation, seed_of


@dataclass(frozen=True, eq=False)
class Shards:
    """The parts that a source is read in, such as tar files or the row groups of parquet.

    An epoch goes through them in an order of its own, in windows: of so many of them that a window has `window`
    images, the last one aside. Inside a window, every image may come at any place. A source that fits into one window
    is shown in the order that it would have without shards.
    """

    ends: np.ndarray
    """(M + 1,) int64: the shards' borders among the images, from 0 on."""
    window: int
    """Images of a window, at least."""

    @cached_property
    def shard_of(self) -> np.ndarray:
        """The shard (N,) of each image."""
        return np.repeat(np.arange(len(self.ends) - 1), np.diff(self.ends))

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The images (N,) in the order in which an epoch shows them: a function of (seed, epoch) and nothing else."""
        order = permutation(seed, epoch, int(self.ends[-1]))
        return order[np.argsort(self.windows(seed, epoch)[self.shard_of[order]], kind="stable")]

    def windows(self, seed: int, epoch: int) -> np.ndarray:
        """The window (M,) in which an epoch shows each shard."""
        shards = permutation(seed_of(seed, epoch), 0, len(self.ends) - 1)
        before = np.cumsum(np.diff(self.ends)[shards]) - np.diff(self.ends)[shards]
        number, window, begun = 0, np.empty(len(shards), np.int64), 0
        for shard, images in zip(shards, before, strict=True):
            if images - begun >= self.window:
                number, begun = number + 1, images
            window[shard] = number
        return window

    def soon(self, seed: int, epoch: int, order: np.ndarray) -> Callable[[int], np.ndarray]:
        """A function from a place in an epoch's order (N,) to the shards (S,) of its window and of the one after it."""
        windows, after = self.windows(seed, epoch), self.windows(seed, epoch + 1)

        def shards_at(place: int) -> np.ndarray:
            number = windows[self.shard_of[order[place]]]
            following = windows == number + 1
            return np.concatenate(
                [np.flatnonzero(windows == number), np.flatnonzero(following if following.any() else after == 0)]
            )

        return shards_at

    def among(self, rows: np.ndarray) -> Shards | None:
        """The shards of some of the images, given by their rows (K,) in ascending order; None in any other order."""
        if (np.diff(rows) <= 0).any():
            return None
        return Shards(np.searchsorted(rows, self.ends), self.window)
