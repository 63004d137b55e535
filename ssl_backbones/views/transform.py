"""A transform of images, in three moves that share one stream of randomness."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from PIL import Image

from ssl_backbones.views.engine import Engine
from ssl_backbones.views.reduction import Reduction, unreduced


class Transform(ABC):
    """A recipe from decoded images to what a method's `forward` takes. Instances are plain values and pickle.

    `draw` fixes every random choice from counters alone; `on_host` runs where images are decoded and hands over uint8
    tensors; `on_device` runs where the network is and returns normalised floats. How the work is split between the two
    is the transform's affair: the same parameters give the same views either way.
    """

    engines: ClassVar[tuple[Engine, ...]] = ("pillow",)
    """The engines that can make its pixels; one that has several is told which by `using_engine`."""

    @property
    def keeps_images(self) -> bool:
        """True if what it makes on the host holds the whole images, so that a batch is made at once."""
        return False

    def at(self, side: int) -> Self:
        """The same views at another side: drawn alike, with lengths in pixels in proportion.

        ValueError unless a subclass knows how.
        """
        raise ValueError(f"{type(self).__name__} makes views of one side alone, not of {side} px as well")

    @abstractmethod
    def draw(self, seed: int, epoch: int, indices: np.ndarray) -> Any:
        """The random choices for the images (B,) of an epoch: a function of (seed, epoch, index) and nothing else."""

    def reductions(self, seed: int, epoch: int, indices: np.ndarray) -> Sequence[Reduction]:
        """The coarseness that each image (B,) may be decoded with for what is drawn: whole, unless a subclass knows."""
        return [unreduced] * len(indices)

    @abstractmethod
    def on_host(self, images: Sequence[Image.Image], parameters: Any) -> Any:
        """Tensors (nested in lists, tuples or dicts) of uint8 pixels and whatever `on_device` needs."""

    @abstractmethod
    def on_device(self, batch: Any) -> Any:
        """The batch of `on_host`, moved to the network's device, as the method's `forward` takes it."""
