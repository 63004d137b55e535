"""The mean and the deviation of each channel, measured on a sample of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ssl_backbones.data.images import Images, ImageSourceError, UnreadableImageError
from ssl_backbones.distributed import doing
from ssl_backbones.views.channel_image import ChannelImage
from ssl_backbones.views.randomness import permutation

SAMPLE = 1024
"""Images of the sample, at most."""
DRAW = 5
"""A counter that makes this draw another than those of measurements and training."""


@dataclass(frozen=True)
class Statistics:
    """The mean and the deviation of each channel in [0, 1], over all pixels of a sample."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: int
    """Images of the sample that could be read."""
    of: int
    """Images that it was drawn from."""
    pixels: int

    def __str__(self) -> str:
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"mean {mean}, deviation {std}, measured on {self.images} of {self.of} images"


def measured(images: Images, seed: int, most: int = SAMPLE) -> Statistics:
    """The statistics of a sample of images that `seed` draws, in single steps of float64.

    ImageSourceError where none of it can be read, or a channel has one value everywhere.
    """
    rows = np.sort(permutation(seed, DRAW, len(images))[:most])
    sums, squares, pixels, count = np.zeros(0), np.zeros(0), 0, 0
    with doing(lambda: f"Measuring channels: {count} of {len(rows)} images"):
        for row in rows.tolist():
            try:
                levels = levels_of(images[row])
            except UnreadableImageError:
                continue
            flat = levels.reshape(-1, levels.shape[2])
            added = flat.sum(axis=0, dtype=np.float64), np.square(flat, dtype=np.float64).sum(axis=0)
            sums, squares = (sums + added[0], squares + added[1]) if count else added
            pixels, count = pixels + len(flat), count + 1
    if not count:
        raise ImageSourceError(f"none of {len(rows)} images can be read, to measure their channels: mend them")
    mean = sums / pixels
    std = np.sqrt((squares / pixels - mean**2).clip(min=0))
    if (constant := np.flatnonzero(std < 1e-4)).size:
        at = int(constant[0])
        raise ImageSourceError(
            f"channel {at + 1} of {len(mean)} is {mean[at] / 255:.4g} in all pixels of {count} images, which tells "
            "nothing: leave it out of the files"
        )
    shares = [tuple(round(float(value) / 255, 6) for value in values) for values in (mean, std)]
    return Statistics(shares[0], shares[1], images=count, of=len(images), pixels=pixels)


def levels_of(image: Image.Image) -> np.ndarray:
    """The levels (H, W, C) of an image on the scale of 8 bits."""
    return image.levels() if isinstance(image, ChannelImage) else np.asarray(image)
