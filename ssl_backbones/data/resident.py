"""A cache whose pixels were brought to a device as a whole."""

from __future__ import annotations

from functools import partial
from typing import final

import numpy as np
import torch
from PIL import Image

from ssl_backbones.data.cached import CachedImages
from ssl_backbones.data.images import Images, ImageSourceError
from ssl_backbones.views.resident import ResidentImage, ResidentPixels

AT_ONCE = 2**26
"""Pixels that are sent to the device at a time."""


@final
class ResidentImages(Images):
    """The images of a cache of pixels: on the device for views that are made there, on the host for all others.

    They belong to this process, so no worker can read them.
    """

    in_process = whole = True

    def __init__(self, images: CachedImages, device: torch.device) -> None:
        """ImageSourceError where the cache holds files instead of pixels."""
        if images.encoded:
            raise ImageSourceError(
                f"the cache in {images.folder} holds JPEG, and only pixels can lie on a device: keep them as they are "
                "(reencode 0)"
            )
        self.cache, self.place, self.part_mark = images, images.place, images.part_mark
        self.keys, self.labels, self.classes = images.keys, images.labels, images.classes
        self.fingerprint, self.fingerprint_by_sizes = images.fingerprint, images.fingerprint_by_sizes
        self.whole_fingerprint, self.content_digest = images.whole_fingerprint, images.content_digest
        images.require(int(images.ends[-1]))
        rows = images.content.reshape(-1, 3)
        levels = torch.empty(rows.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(rows), AT_ONCE):
            images.require(3 * min(start + AT_ONCE, len(rows)))
            levels[start : start + AT_ONCE] = torch.from_numpy(np.array(rows[start : start + AT_ONCE]))
        starts, sizes = (
            torch.from_numpy(np.array(values, np.int64)) for values in (images.ends[:-1] // 3, images.shapes)
        )
        self.pixels = ResidentPixels(levels, starts.to(device), sizes.to(device))

    def __getitem__(self, index: int) -> Image.Image:
        at = range(len(self))[index]
        if at in self.cache.unreadable:
            return self.cache[at]  # raises, and says why
        height, width = self.cache.shapes[at].tolist()
        return ResidentImage(self.pixels, at, (width, height), partial(self.cache.__getitem__, at))
