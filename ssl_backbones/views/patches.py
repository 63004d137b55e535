"""An image turned, and a small turned copy of it pasted into it; whole batches at a time, on any device.

Pham et al., 2021. https://arxiv.org/abs/2108.00475. Turning by quarters: Gidaris et al., 2018.
https://arxiv.org/abs/1803.07728
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def rotations(images: Tensor) -> Tensor:
    """The images (B, C, S, S) turned counter-clockwise by 0, 90, 180 and 270 degrees, one after another: (4B, C, S, S).

    Row k * B + b is image b turned k times; channels lie last in memory. ValueError for images that are not square.
    """
    return _below_one_another(_turned(_channels_last(images)))


def patch_views(images: Tensor, ratio: float, corners: Tensor, antialias: bool = False) -> Tensor:
    """Eight views (8B, C, S, S) of images (B, C, S, S): four turned, then four upright with a turned patch in them.

    Row k * B + b is image b turned k times; row (4 + k) * B + b is image b with itself, turned k times and at `ratio`
    of its side, pasted over the rows and columns from its corner on. The corners are (B, 2), shared by the four
    patches of an image, or (B, 4, 2), one for each; all of them lie in [0, S - side].
    """
    upright = _channels_last(images)
    b, size = len(images), images.shape[2]
    side = patch_side(size, ratio)
    small = interpolate(images, size=(side, side), mode="bilinear", align_corners=False, antialias=antialias)
    views = torch.cat([_turned(upright), upright.expand(4, *upright.shape)])  # (8, B, S, S, C)
    first = corners.view(b, -1, 2).expand(b, 4, 2).transpose(0, 1)  # (4, B, 2)
    along = torch.arange(side, device=images.device)
    rows, columns = (first[:, :, axis, None] + along for axis in (0, 1))
    turn = torch.arange(4, device=images.device)[:, None, None, None]
    image = torch.arange(b, device=images.device)[:, None, None]
    # A patch is as square as its image, so it may be turned after it was made small: the result is the same.
    views[4:][turn, image, rows[:, :, :, None], columns[:, :, None, :]] = _turned(_channels_last(small))
    return _below_one_another(views)


def patch_side(size: int, ratio: float) -> int:
    """The side of the patch in an image of side `size`, in whole pixels; ValueError where there is no such patch."""
    check_ratio(ratio)
    side = int(size * ratio)
    if side < 1:
        raise ValueError(f"a patch of ratio={ratio} has no pixel in images of {size} x {size}: raise one of the two")
    return side


def check_ratio(ratio: float) -> None:
    """Raise ValueError for a patch that is nothing, or more than the image."""
    if not 0 < ratio < 1:
        raise ValueError(f"ratio is the patch's share of the image's side and must be in (0, 1), not {ratio}")


def _channels_last(images: Tensor) -> Tensor:
    """The images as (B, S, S, C); only square ones keep their shape when they are turned."""
    height, width = images.shape[2:]
    if height != width:
        raise ValueError(
            f"images of {height} x {width} cannot be turned by 90 degrees and keep their shape: make them square first"
        )
    return images.permute(0, 2, 3, 1)


def _turned(images: Tensor) -> Tensor:
    """Images (B, S, S, C) turned by each number of quarters, (4, B, S, S, C)."""
    return torch.stack([torch.rot90(images, quarters, (1, 2)) for quarters in range(4)])


def _below_one_another(views: Tensor) -> Tensor:
    """Views (V, B, S, S, C) as one batch of images, (V * B, C, S, S)."""
    return views.flatten(0, 1).permute(0, 3, 1, 2)
