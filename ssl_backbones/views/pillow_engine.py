"""The reference engine: one image at a time, in uint8, with Pillow alone.

Given the same parameters, every operation leaves the same pixels as torchvision's on PIL images; where it is written
differently from Pillow's own class, that is for speed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter, ImageOps

from ssl_backbones.views.normalise import ChannelError
from ssl_backbones.views.per_image import Operations

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    """The image's levels (H, W, 3), read-only; ChannelError for one that is not RGB."""
    check_rgb(image)
    return np.frombuffer(image.tobytes(), dtype=np.uint8).reshape(image.height, image.width, 3)


def check_rgb(image: Image.Image) -> None:
    """Raise ChannelError for an image of another mode than RGB."""
    if image.mode != "RGB":
        raise ChannelError(f"an image is of mode {image.mode!r}, where views are of RGB: give image.convert('RGB')")


def crop(image: Image.Image, box: Sequence[int], size: int, resampling: Image.Resampling) -> Image.Image:
    """The box (left, top, width, height) at size x size, with nothing from outside the box in it."""
    left, top, width, height = box
    return image.crop((left, top, left + width, top + height)).resize((size, size), resampling)


def flip(image: Image.Image) -> Image.Image:
    """The mirror image."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def brightness(image: Image.Image, factor: float) -> Image.Image:
    """The image mixed with black."""
    return Image.blend(Image.new("RGB", image.size), image, factor)


def contrast(image: Image.Image, factor: float) -> Image.Image:
    """The image mixed with the mean of its grey."""
    levels = np.frombuffer(image.convert("L").tobytes(), dtype=np.uint8)
    mean = int(int(levels.sum()) / levels.size + 0.5)
    return Image.blend(Image.new("RGB", image.size, (mean, mean, mean)), image, factor)


def saturation(image: Image.Image, factor: float) -> Image.Image:
    """The image mixed with its grey."""
    return Image.blend(grey(image), image, factor)


def hue(image: Image.Image, share: float) -> Image.Image:
    """The image with its colours turned by a share of the circle, in Pillow's 256 steps of hue."""
    turn = Image.new("HSV", image.size, (int(share * 255) % 256, 0, 0))
    return ImageChops.add_modulo(image.convert("HSV"), turn).convert("RGB")


def grey(image: Image.Image) -> Image.Image:
    """The image without colour, in three equal channels."""
    return image.convert("L").convert("RGB")


def blur(image: Image.Image, sigma: float) -> Image.Image:
    """The image under Pillow's Gaussian: three extended boxes each way."""
    return image.filter(ImageFilter.GaussianBlur(sigma))


def solarize(image: Image.Image, threshold: int) -> Image.Image:
    """The image with the levels from the threshold on inverted."""
    if threshold == 128:  # x or 255 - x, whichever is darker: a fifth of the time of a look-up table at 32 px
        return ImageChops.darker(image, ImageChops.invert(image))
    return ImageOps.solarize(image, threshold)


render = Operations(crop, flip, (brightness, contrast, saturation, hue), grey, blur, solarize, pixels).render
"""One view (B, S, S, 3) of each RGB image, by a policy and its parameters."""
