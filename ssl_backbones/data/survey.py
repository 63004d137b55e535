"""A look at images before anything is planned for them: sizes, labels, copies, and a sample that is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import numpy as np

from ssl_backbones.data.copies import without_copies
from ssl_backbones.data.digests import spread
from ssl_backbones.data.frames import frame_of
from ssl_backbones.data.images import Images, UnreadableImageError
from ssl_backbones.data.opening import classes_sentence, depth_sentence

LOOKED_AT = 64
"""Images of a sample, at most, evenly spread."""
LARGE = 2e6
"""Pixels of an image from which decoding costs more than views."""
KEPT = 44_000
"""Bytes of an image that is kept as JPEG of 256 px: the mean of twelve of 12 megapixels."""


@dataclass(frozen=True)
class Survey:
    """The images as a look at them found them."""

    images: int
    sides: tuple[int, int, int]
    """Smallest, median and largest shorter side of the sample, in pixels; zeros where no size could be read."""
    pixels: float
    """Median of an image."""
    bytes: int
    """Encoded size of all images; 0 where unknown."""
    unreadable: tuple[int, int]
    """Images of the sample that cannot be read, and the size of the sample."""
    copies: int
    """Images that are, bit for bit, another one."""
    labels: str
    """The sentence on classes; empty without."""
    depth: str
    """The sentence on 16 bits of which RGB keeps little; empty where it keeps them."""

    def sentences(self) -> list[str]:
        """The findings, a sentence each."""
        smallest, middle, largest = self.sides
        spread = f"all {middle} px" if smallest == largest else f"{smallest} to {largest} px, median {middle}"
        size = f", {self.bytes / 1e6:.1f} MB" if self.bytes else ""
        bad, looked_at = self.unreadable
        found = [f"{self.images} images{size}; shorter side {spread}; median {self.pixels / 1e6:.1f} megapixels."]
        found += [self.labels or "No labels: none are needed, and no accuracy is measured without them."]
        found += [self.depth] if self.depth else []
        found += [f"{bad} of {looked_at} images decoded for a trial cannot be read ({bad / looked_at:.0%})."]
        found += [f"{self.copies} images are copies of others, bit for bit."] if self.copies else []
        if self.pixels > LARGE:
            found += [
                "Such images are decoded anew in every epoch: --cache FOLDER --reencode 256 does it once and keeps "
                f"them in about {KEPT * self.images / 1e6:,.0f} MB."
            ]
        return found


def survey(images: Images) -> Survey:
    """Look at the images: at the headers and the pixels of a sample, and at the bytes of those of equal size."""
    rows = spread(len(images), LOOKED_AT)
    frames = [frame.upright for row in rows if (frame := frame_of(images.raw(row))) is not None]
    decoded = [size for row in rows if (size := size_read(images, row)) is not None]
    sizes = frames or decoded
    sides = [min(size) for size in sizes]
    return Survey(
        images=len(images),
        sides=(min(sides), int(median(sides)), max(sides)) if sides else (0, 0, 0),
        pixels=median(width * height for width, height in sizes) if sizes else 0,
        bytes=0 if images.sizes is None else int(np.clip(images.sizes, 0, None).sum()),
        unreadable=(len(rows) - len(decoded), len(rows)),
        copies=len(images) - len(without_copies(images, np.arange(len(images)))),
        labels=classes_sentence(images),
        depth=depth_sentence(images),
    )


def size_read(images: Images, row: int) -> tuple[int, int] | None:
    """Width and height of an image that was decoded; None for one that cannot be."""
    try:
        return images[row].size
    except UnreadableImageError:
        return None
