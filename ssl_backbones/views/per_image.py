"""The order in which a view is made of one image, whatever library has the operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_backbones.views.policy import Parameters, Policy
from ssl_backbones.views.reduction import whole_size

T = TypeVar("T")


@dataclass(frozen=True)
class Operations(Generic[T]):
    """The operations of a policy, on a library's own kind of image T."""

    crop: Callable[[Image.Image, Sequence[int], int, Image.Resampling], T]
    """The image's box (left, top, width, height) at size x size."""
    flip: Callable[[T], T]
    colour: tuple[Callable[[T, float], T], ...]
    """In the order of the columns of `Parameters.factors`."""
    grey: Callable[[T], T]
    blur: Callable[[T, float], T]
    solarize: Callable[[T, int], T]
    pixels: Callable[[T], NDArray[Any]]
    """The picture's levels (S, S, C)."""

    def render(
        self, images: Sequence[Image.Image], policy: Policy, parameters: Parameters, size: int
    ) -> NDArray[np.uint8]:
        """One view (B, S, S, 3) of each RGB image, of the side that the policy has in a run of `size` pixels."""
        side = policy.side(size)
        views = np.empty((len(images), side, side, 3), dtype=np.uint8)
        self.fill(views, images, policy, parameters)
        return views

    def fill(self, views: NDArray[Any], images: Sequence[Image.Image], policy: Policy, parameters: Parameters) -> None:
        """Put a view of each image into views (B, S, S, C)."""
        size = views.shape[1]
        sizes = np.array([whole_size(image) for image in images], dtype=np.int64).reshape(-1, 2)
        boxes = policy.crop_boxes(parameters, sizes)
        resampling = Image.Resampling[policy.interpolation.upper()]
        rows = zip(
            images,
            boxes.tolist(),
            parameters.flip.tolist(),
            parameters.order.tolist(),
            parameters.factors.tolist(),
            parameters.grey.tolist(),
            parameters.sigma.tolist(),
            parameters.solarize.tolist(),
            parameters.quarters.tolist(),
            strict=True,
        )
        for view, (image, box, flipped, order, factors, is_grey, sigma, solarized, quarters) in zip(
            views, rows, strict=True
        ):
            picture = self.crop(image, box, size, resampling)
            if flipped and not policy.flip_last:
                picture = self.flip(picture)
            for operation in order:
                if operation >= 0:
                    picture = self.colour[operation](picture, factors[operation])
            if is_grey:
                picture = self.grey(picture)
            if sigma:
                picture = self.blur(picture, sigma)
            if solarized:
                picture = self.solarize(picture, policy.threshold)
            if flipped and policy.flip_last:
                picture = self.flip(picture)
            view[:] = np.rot90(self.pixels(picture), quarters) if quarters else self.pixels(picture)
