"""The random operations that make a view of an image, and the draw of their parameters."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

TRIES = 10
"""Crops proposed before the centre crop is taken, as torchvision has it."""
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
"""The colour operations: columns of `factors`, entries of `order`."""
UNIFORMS = 2 * TRIES + 17
"""Numbers in [0, 1) that one draw takes."""


@dataclass(frozen=True)
class Parameters:
    """The parameters of B views: the same for every engine."""

    area: NDArray[np.float64]
    """(B, 10) proposed crops: share of the image's area."""
    ratio: NDArray[np.float64]
    """(B, 10) proposed crops: width over height."""
    position: NDArray[np.float64]
    """(B, 2) in [0, 1): where between the image's left and right, top and bottom, the crop lies."""
    flip: NDArray[np.bool_]
    """(B,)"""
    order: NDArray[np.int64]
    """(B, 4) the colour operations, first to last; -1 where there is none."""
    factors: NDArray[np.float64]
    """(B, 4) brightness, contrast and saturation as factors, hue as a share of the circle."""
    grey: NDArray[np.bool_]
    """(B,)"""
    sigma: NDArray[np.float64]
    """(B,) standard deviation of the blur in pixels; 0 is none."""
    solarize: NDArray[np.bool_]
    """(B,)"""
    quarters: NDArray[np.int64]
    """(B,) quarter turns counter-clockwise, from 0 to 3."""

    def row(self, at: int) -> Parameters:
        """The parameters of one view."""
        return Parameters(*(getattr(self, field.name)[at : at + 1] for field in fields(self)))


@dataclass(frozen=True)
class Policy:
    """A chance for each operation, in the order they are applied: crop, flip, jitter, grey, blur, solarize, turn.

    The semantics are torchvision's: RandomResizedCrop, RandomHorizontalFlip, RandomApply(ColorJitter),
    RandomGrayscale, and Pillow's GaussianBlur and solarize.
    """

    area: tuple[float, float] = (0.2, 1.0)
    """Crop's share of the image's area, drawn uniformly."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Crop's aspect ratio, width over height, drawn uniformly in the logarithm."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Interpolation of the crop's resize."""
    flip_p: float = 0.5
    """Probability of a horizontal flip."""
    flip_last: bool = False
    """Flip after everything else instead of right after the crop."""
    jitter_p: float = 0.8
    """Probability of colour jitter."""
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    """Strengths of brightness, contrast, saturation and hue; 0 leaves one out."""
    grey_p: float = 0.2
    """Probability of greyscale."""
    blur_p: float = 0.5
    """Probability of a Gaussian blur."""
    sigma: tuple[float, float] = (0.1, 2.0)
    """Standard deviation of the blur in pixels, drawn uniformly."""
    solarize_p: float = 0.0
    """Probability of solarization."""
    threshold: int = 128
    """Levels from here on are inverted by solarization."""
    size_share: float = 1.0
    """Side of the view as a share of the run's size: 3/7 for crops of 96 px beside views of 224 px."""
    turn_p: float = 0.0
    """Probability of one, two or three quarter turns, each as likely, for images that have no upright."""

    def __post_init__(self) -> None:
        for name in ("flip_p", "jitter_p", "grey_p", "blur_p", "solarize_p", "turn_p"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "a probability in [0, 1]")
        _check("area", self.area, 0 < self.area[0] <= self.area[1] <= 1, "0 < smallest <= largest <= 1")
        _check("ratio", self.ratio, 0 < self.ratio[0] <= self.ratio[1], "0 < smallest <= largest")
        _check("sigma", self.sigma, 0 < self.sigma[0] <= self.sigma[1], "0 < smallest <= largest, in pixels")
        _check("jitter", self.jitter, len(self.jitter) == 4 and min(self.jitter) >= 0, "four strengths of 0 or more")
        _check("jitter", self.jitter, self.jitter[HUE] <= 0.5, "a hue, the fourth, of at most 0.5")
        _check("threshold", self.threshold, 0 <= self.threshold <= 256, "a grey level in [0, 256]")
        _check("size_share", self.size_share, 0 < self.size_share <= 1, "above 0 and at most 1")
        known = self.interpolation in ("bilinear", "bicubic")
        _check("interpolation", self.interpolation, known, "'bilinear' or 'bicubic'")

    def __repr__(self) -> str:
        """The fields as any dataclass has them, but turns only where there are some: older records name policies so."""
        shown = (field.name for field in fields(self) if field.name != "turn_p" or self.turn_p)
        return f"Policy({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    @property
    def of_colours(self) -> tuple[str, ...]:
        """The operations, by name, that are defined for RGB of 8 bits alone."""
        shares = {"saturation": self.jitter[SATURATION], "hue": self.jitter[HUE]} if self.jitter_p else {}
        shares |= {"grey": self.grey_p, "solarize": self.solarize_p}
        return tuple(name for name, share in shares.items() if share)

    def of_channels(self) -> Policy:
        """The policy without them: crop, flip, brightness, contrast and blur stay as they are."""
        brightness, contrast, *_ = self.jitter
        return replace(self, jitter=(brightness, contrast, 0.0, 0.0), grey_p=0.0, solarize_p=0.0)

    def side(self, size: int) -> int:
        """The side of the view in a run of views of `size` pixels: the size, or a smaller multiple of four."""
        return size if self.size_share == 1 else min(size, max(4, 4 * round(size * self.size_share / 4)))

    def at(self, scale: float) -> Policy:
        """The policy of the same views at so many times their side: what is in pixels, the blur, in proportion."""
        return replace(self, sigma=(scale * self.sigma[0], scale * self.sigma[1]))

    def draw(self, uniforms: NDArray[np.float64]) -> Parameters:
        """Draw the parameters of B views from numbers (B, UNIFORMS) in [0, 1)."""
        area, ratio, position, coins, factors, order, sigma, turn = np.split(
            uniforms, np.cumsum([TRIES, TRIES, 2, 5, 4, 4, 1]), axis=1
        )
        flip, jittered, grey, blurred, solarize = (
            coins < (self.flip_p, self.jitter_p, self.grey_p, self.blur_p, self.solarize_p)
        ).T
        strengths = np.array(self.jitter)
        centre = np.array([1.0, 1.0, 1.0, 0.0])
        lowest = np.maximum(centre - strengths, [0.0, 0.0, 0.0, -0.5])
        operations = np.argsort(order, axis=1)
        present = jittered[:, None] & (strengths > 0)[operations]
        return Parameters(
            area=_between(area, *self.area),
            ratio=np.exp(_between(ratio, *np.log(self.ratio))),
            position=position,
            flip=flip,
            order=np.where(present, operations, -1),
            factors=_between(factors, lowest, centre + strengths),
            grey=grey,
            sigma=np.where(blurred, _between(sigma[:, 0], *self.sigma), 0.0),
            solarize=solarize,
            quarters=(np.searchsorted(self.turn_p * np.arange(1, 4) / 3, turn[:, 0], side="right") + 1) % 4,
        )

    def shortest_side(self, parameters: Parameters, width: int, height: int) -> NDArray[np.int64]:
        """The shorter side (B,) of each crop, in images of that width and height."""
        sizes = np.tile([width, height], (len(parameters.flip), 1))
        shortest: NDArray[np.int64] = self.crop_boxes(parameters, sizes)[:, 2:].min(axis=1)
        return shortest

    def crop_boxes(self, parameters: Parameters, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Left, top, width and height (B, 4) of the crop in images of width and height (B, 2).

        The first proposal that fits the image; where none of them does, the largest centre crop of an allowed ratio.
        """
        size = sizes[:, None, :]
        target = parameters.area * size.prod(axis=2)
        proposals = np.rint(np.sqrt(np.stack([target * parameters.ratio, target / parameters.ratio], axis=2)))
        fits = ((proposals > 0) & (proposals <= size)).all(axis=2)
        first = np.take_along_axis(proposals, fits.argmax(axis=1)[:, None, None], axis=1)[:, 0].astype(np.int64)
        corner = np.floor(parameters.position * (sizes - first + 1)).astype(np.int64)
        centre = self._centre_size(sizes)
        found = fits.any(axis=1)[:, None]
        return np.hstack([np.where(found, corner, (sizes - centre) // 2), np.where(found, first, centre)])

    def _centre_size(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Width and height (B, 2) of the largest part of images (B, 2) whose ratio is allowed."""
        width, height = sizes.T
        narrow, wide = width / height < self.ratio[0], width / height > self.ratio[1]
        return np.stack(
            [
                np.where(wide, np.rint(height * self.ratio[1]), width),
                np.where(narrow, np.rint(width / self.ratio[0]), height),
            ],
            axis=1,
        ).astype(np.int64)


def _between(
    share: NDArray[np.float64], lowest: float | NDArray[np.float64], highest: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    return lowest + share * (highest - lowest)


def _check(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"the view policy's {name} is {value!r}, but it has to be {expected}")
