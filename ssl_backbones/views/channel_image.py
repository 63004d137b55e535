"""Images of any number of channels, of 8 or 16 bits or of floats, and views of them without a loss of bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ssl_backbones.views.device_engine import box_radius, box_weights
from ssl_backbones.views.normalise import ChannelError
from ssl_backbones.views.per_image import Operations
from ssl_backbones.views.policy import Parameters, Policy

Levels = NDArray[np.float32]
"""(H, W, C) on the scale of 8 bits, from 0 to 255, with fractions."""
WHITE = {"8 bits": 255, "16 bits": 65535, "floats": 1}
"""The value of white, by the depth of an image: of its type, not of the brightest pixel."""


class ChannelImage(Image.Image):
    """An image of C channels. Whoever takes it for an image of Pillow's sees an RGB look of it, made when it is asked.

    The look has the first three channels, or the first as grey, stretched to what the image has of levels: for eyes.
    """

    def __init__(self, values: NDArray[Any], depth: str) -> None:
        """From values (H, W, C): uint8, uint16, or float32 in [0, 1]."""
        super().__init__()
        self._mode, self._size = "RGB", (values.shape[1], values.shape[0])
        self.values, self.depth = values, depth
        self.looked_at = False

    def load(self) -> Any:
        """Make the look: what Pillow calls before it works on any of its images."""
        if not self.looked_at:
            self.im, self.looked_at = look(self.levels()).im, True
        return super().load()

    def cut(self, box: Sequence[int]) -> ChannelImage:
        """The part (left, top, right, bottom) of the image, with its channels."""
        left, top, right, bottom = box
        return ChannelImage(self.values[top:bottom, left:right], self.depth)

    def levels(self, box: Sequence[int] | None = None) -> Levels:
        """The levels (H, W, C) of a box (left, top, width, height), or of the whole image."""
        left, top, width, height = box or (0, 0, *self.size)
        values = self.values[top : top + height, left : left + width].astype(np.float32)
        return values if self.depth == "8 bits" else values * np.float32(255 / WHITE[self.depth])


def look(levels: Levels) -> Image.Image:
    """An RGB picture of levels (H, W, C), stretched from their smallest to their largest."""
    shown = levels[..., :3] if levels.shape[2] >= 3 else levels[..., :1].repeat(3, axis=2)
    low, high = float(shown.min()), float(shown.max())
    stretched = (shown - low) * (255 / max(high - low, 1e-6))
    return Image.fromarray(np.ascontiguousarray(stretched.round().astype(np.uint8)))


def picture(levels: NDArray[Any]) -> Image.Image:
    """The picture of levels (H, W, C): as they are where they are RGB of 8 bits, a look of all others."""
    plain = levels.dtype == np.uint8 and levels.shape[2] == 3
    return Image.fromarray(levels) if plain else look(levels.astype(np.float32))


def have_channels(images: Sequence[Image.Image]) -> TypeGuard[Sequence[ChannelImage]]:
    """True for a batch of images with channels of their own."""
    return any(isinstance(image, ChannelImage) for image in images)


def resized(levels: Levels, width: int, height: int, resampling: Image.Resampling) -> Levels:
    """Levels (H, W, C) at another size, by Pillow's filter in floats, channel by channel."""
    channels = (Image.fromarray(np.ascontiguousarray(levels[..., at])) for at in range(levels.shape[2]))
    return np.stack([np.asarray(one.resize((width, height), resampling)) for one in channels], axis=2).clip(0, 255)


def crop(image: Image.Image, box: Sequence[int], size: int, resampling: Image.Resampling) -> Levels:
    """The box (left, top, width, height) at size x size, with nothing from outside the box in it."""
    assert isinstance(image, ChannelImage)
    return resized(image.levels(box), size, size, resampling)


def flip(x: Levels) -> Levels:
    """The mirror image."""
    return x[:, ::-1]


def brightness(x: Levels, factor: float) -> Levels:
    """The image mixed with black."""
    return (x * np.float32(factor)).clip(0, 255)


def contrast(x: Levels, factor: float) -> Levels:
    """Each channel mixed with its own mean."""
    mean: Levels = x.mean(axis=(0, 1), keepdims=True)
    mixed: Levels = mean + np.float32(factor) * (x - mean)
    return mixed.clip(0, 255)


def blur(x: Levels, sigma: float) -> Levels:
    """The image under Pillow's Gaussian, three boxes each way over repeated edges, not rounded."""
    radius = torch.tensor([box_radius(sigma)])
    reach = int(radius) + 1
    down, across = (torch.linalg.matrix_power(box_weights(side, radius, reach)[0], 3) for side in x.shape[:2])
    channels = torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))
    blurred: Levels = (down @ channels @ across.mT).numpy().transpose(1, 2, 0)
    return blurred


def undefined(x: Levels, *_: float) -> Levels:
    """Never called: `check_policy` refuses a policy with such an operation."""
    raise AssertionError("an operation of RGB of 8 bits alone was drawn")


def pixels(x: Levels) -> Levels:
    """The levels as they are."""
    return x


OPERATIONS = Operations(crop, flip, (brightness, contrast, undefined, undefined), undefined, blur, undefined, pixels)


def render(images: Sequence[ChannelImage], policy: Policy, parameters: Parameters, size: int) -> Levels:
    """One view (B, S, S, C) of each image; ChannelError for a policy that changes colours."""
    if not all(isinstance(image, ChannelImage) for image in images):
        raise ChannelError("a batch has images with channels of their own and RGB images: read all of them one way")
    check_policy(policy)
    side = policy.side(size)
    views = np.empty((len(images), side, side, images[0].values.shape[2]), np.float32)
    OPERATIONS.fill(views, images, policy, parameters)
    return views


def check_policy(policy: Policy, which: str = "a view") -> None:
    """ChannelError for a policy with operations that are defined for RGB of 8 bits alone."""
    if policy.of_colours:
        raise ChannelError(
            f"{which} changes {', '.join(policy.of_colours)}, defined for RGB of 8 bits alone, and the images have "
            "channels of their own: --views channels leaves that out of all views"
        )


def middles(images: Sequence[ChannelImage], sizes: Sequence[tuple[int, int]], size: int, resampling: Any) -> Levels:
    """The middle size x size (B, S, S, C) of each image at a width and a height of its own."""
    views = np.empty((len(images), size, size, images[0].values.shape[2]), np.float32)
    for view, image, (width, height) in zip(views, images, sizes, strict=True):
        left, top = round((width - size) / 2), round((height - size) / 2)
        view[:] = resized(image.levels(), width, height, resampling)[top : top + size, left : left + size]
    return views
