"""The fast engine: one image at a time, in uint8, with OpenCV; Pillow shrinks, for its filter is the reference.

It repeats Pillow's arithmetic in floats that are rounded to whole levels. From the same pixels each operation gives
what the Pillow engine gives:
- flip, turn, solarize, and crops that are shrunk, or bicubic: the same levels;
- brightness, contrast, saturation, grey: the same but for one value in 1000, and there within 2 levels;
- bilinear crops that are enlarged: within 1 level, 0.25 on average, for Pillow rounds twice and OpenCV once;
- blur: within 3 levels, 0.4 on average, for Pillow rounds six times and here it is three;
- hue: the same but for one value in 200, where eight-bit HSV is on an edge, and there within 6 levels.

A JPEG of a million pixels and more is decoded no finer than its crops need, at two of its pixels or more for each of a
view's: sharp images then give views within 1 level on average, and for 99 values in 100 within 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_backbones.views import pillow_engine
from ssl_backbones.views.device_engine import box_radius
from ssl_backbones.views.per_image import Operations
from ssl_backbones.views.policy import Parameters, Policy
from ssl_backbones.views.reduction import ReducedImage

Levels = NDArray[Any]
"""(H, W, 3), or (H, W) of grey, in uint8; OpenCV's annotations are not as sure of that."""
EDGE = 2.0**-12
"""The distance to a whole level below which a value is taken for it: more than the error of float32 below 256."""
DOWN = EDGE - 0.5
"""The shift that makes the next whole level below of OpenCV's nearest."""


def render(images: Sequence[Image.Image], policy: Policy, parameters: Parameters, size: int) -> Levels:
    """One view (B, S, S, 3) of each RGB image, on one thread: readers are processes, and forked threads are lost."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        return OPERATIONS.render(images, policy, parameters, size)
    finally:
        cv2.setNumThreads(threads)


def crop(image: Image.Image, box: Sequence[int], size: int, resampling: Image.Resampling) -> Levels:
    """The box (left, top, width, height) at size x size, with nothing from outside the box in it."""
    import cv2

    if isinstance(image, ReducedImage):
        return pillow_engine.pixels(image.part(box, size, resampling))
    if resampling is not Image.Resampling.BILINEAR:  # OpenCV's bicubic is another kernel (a = -3/4)
        return pillow_engine.pixels(pillow_engine.crop(image, box, size, resampling))
    left, top, width, height = box
    part = image.crop((left, top, left + width, top + height))
    if max(width, height) > size:  # OpenCV's bilinear has no antialiasing
        part = part.resize((min(width, size), min(height, size)), resampling)
    levels = pillow_engine.pixels(part)
    return levels if part.size == (size, size) else cv2.resize(levels, (size, size), interpolation=cv2.INTER_LINEAR)


def flip(x: Levels) -> Levels:
    """The mirror image."""
    import cv2

    return cv2.flip(x, 1)


def brightness(x: Levels, factor: float) -> Levels:
    """The image mixed with black."""
    import cv2

    return cv2.addWeighted(x, factor, x, 0, DOWN)


def contrast(x: Levels, factor: float) -> Levels:
    """The image mixed with the mean of its grey."""
    import cv2

    mean = int(cv2.mean(luma(x))[0] + 0.5)
    return cv2.addWeighted(x, factor, x, 0, (1 - factor) * mean + DOWN)


def saturation(x: Levels, factor: float) -> Levels:
    """The image mixed with its grey."""
    import cv2

    return cv2.addWeighted(grey(x), 1 - factor, x, factor, DOWN)


def hue(x: Levels, share: float) -> Levels:
    """The image with its colours turned by a share of the circle, in Pillow's 256 steps of hue."""
    import cv2

    colours = cv2.cvtColor(x.astype(np.float32), cv2.COLOR_RGB2HSV)
    steps = cv2.transform(colours, TO_STEPS).astype(np.uint8)
    turned = cv2.cvtColor(cv2.LUT(steps, from_steps(int(share * 255) % 256)), cv2.COLOR_HSV2RGB)
    return cv2.convertScaleAbs(turned)


TO_STEPS = np.array([[255 / 360, 0, 0, EDGE], [0, 255, 0, EDGE], [0, 0, 1, 0]], dtype=np.float32)
"""Maps hue in degrees, saturation in [0, 1] and value in levels to Pillow's 256 steps each, before they are
truncated."""


@lru_cache(maxsize=256)
def from_steps(turn: int) -> NDArray[np.float32]:
    """Degrees of hue, saturation in [0, 1] and value in levels (1, 256, 3) of 256 steps each, the hue turned."""
    steps = np.arange(256)
    return np.stack([(steps + turn) % 256 * 360 / 255 % 360, steps / 255, steps], axis=1, dtype=np.float32)[None]


def grey(x: Levels) -> Levels:
    """The image without colour, in three equal channels."""
    import cv2

    return cv2.cvtColor(luma(x), cv2.COLOR_GRAY2RGB)


def luma(x: Levels) -> Levels:
    """Luma (S, S) of ITU-R 601, in OpenCV's 15 bits where Pillow has 16."""
    import cv2

    return cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)


def blur(x: Levels, sigma: float) -> Levels:
    """The image under Pillow's Gaussian: three boxes whose ends count in part, over repeated edges."""
    import cv2

    box = extended_box(sigma)
    for _ in range(3):
        x = cv2.sepFilter2D(x, -1, box, box, borderType=cv2.BORDER_REPLICATE)
    return x


def extended_box(sigma: float) -> NDArray[np.float32]:
    """Weights (2R + 1,) of the box whose threefold use has the deviation sigma."""
    radius = box_radius(sigma)
    reach = int(radius) + 1
    parts = [min(radius + 1 - abs(place), 1.0) / (2 * radius + 1) for place in range(-reach, reach + 1)]
    return np.array(parts, dtype=np.float32)  # so few numbers take numpy's functions fifty times as long


def solarize(x: Levels, threshold: int) -> Levels:
    """The image with the levels from the threshold on inverted."""
    import cv2

    return cv2.LUT(x, inverted_from(threshold))


@lru_cache(maxsize=8)
def inverted_from(threshold: int) -> Levels:
    """The solarized level of each level, (256,)."""
    levels = np.arange(256, dtype=np.uint8)
    return np.where(levels < threshold, levels, 255 - levels)


def pixels(x: Levels) -> Levels:
    """The picture as it is."""
    return x


OPERATIONS = Operations(crop, flip, (brightness, contrast, saturation, hue), grey, blur, solarize, pixels)
