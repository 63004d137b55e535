"""The places of views in their images, for methods that compare what two views show of the same place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_backbones.views.handed_over import HandedOver
from ssl_backbones.views.policy import Parameters, Policy
from ssl_backbones.views.reduction import whole_size


class Geometry(NamedTuple):
    """The places of V views of each of B images, a row an image, in pixels of the images before any were left out."""

    boxes: Tensor
    """(B, V, 4) int64: left, top, width and height of the crop."""
    flips: Tensor
    """(B, V) bool: True if the crop was mirrored."""
    sizes: Tensor
    """(B, 2) int64: the image's width and height."""

    def corners(self) -> Tensor:
        """x0, y0, x1, y1 (V, B, 4) of each view's first and last pixels, as shares of the image's sides.

        A mirrored view has x0 > x1, so that its columns run from x0 to x1 like any other's.
        """
        first, extent = self.boxes.transpose(0, 1).split(2, dim=2)
        span = (self.sizes - 1).clamp(min=1).float()
        (left, top), (right, bottom) = ((each / span).unbind(2) for each in (first, first + extent - 1))
        x0, x1 = torch.where(self.flips.mT, right, left), torch.where(self.flips.mT, left, right)
        return torch.stack([x0, top, x1, bottom], dim=2)

    def corners_in_pixels(self) -> Tensor:
        """The same x0, y0, x1, y1 (V, B, 4) in pixels of the image, which are as wide as high."""
        return self.corners() * (self.sizes - 1).repeat(1, 2)


class Located(NamedTuple):
    """Views, and their places in the images."""

    views: Any
    """The views as they come without places: a list of (B, 3, S, S), or Exchanged."""
    geometry: Geometry


def geometry_of(
    images: Sequence[Image.Image], policies: Sequence[Policy], parameters: Sequence[Parameters]
) -> Geometry:
    """The places of the views of images (B,) by policies (V,) and their parameters; no pixel is read for it."""
    sizes = np.array([whole_size(image) for image in images], dtype=np.int64).reshape(-1, 2)
    views = zip(policies, parameters, strict=True)
    boxes = np.stack([policy.crop_boxes(drawn, sizes) for policy, drawn in views], axis=1)
    flips = np.stack([drawn.flip for drawn in parameters], axis=1)
    return Geometry(torch.from_numpy(boxes), torch.from_numpy(flips), torch.from_numpy(sizes))


@final
@dataclass(frozen=True)
class LocatedViews(HandedOver):
    """The views (B, 3, S, S) of each image, and their places in it: Located, where `views` makes a list."""

    def __post_init__(self) -> None:
        """Raise ValueError for views that are turned, as corners alone do not tell that."""
        turned = max(policy.turn_p for policy in self.views.policies)
        if turned:
            raise ValueError(
                f"turn_p is {turned:g}, but has to be 0 for views whose places in the image are told: leave out --turns"
            )

    def on_host(self, images: Sequence[Image.Image], parameters: tuple[Parameters, ...]) -> Located:
        """The views as they are on the host, and their places."""
        return Located(self.views.on_host(images, parameters), geometry_of(images, self.views.policies, parameters))

    def on_device(self, batch: Located) -> Located:
        """The normalised views (B, 3, S, S), and their places."""
        return Located(self.views.on_device(batch.views), batch.geometry)
