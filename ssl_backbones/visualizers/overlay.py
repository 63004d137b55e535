"""A heat map laid over the image it belongs to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from ssl_backbones.visualizers.colours import DAWN


def overlay(image: Image.Image, heat: npt.ArrayLike, *, alpha: float = 0.5, colours: np.ndarray = DAWN) -> Image.Image:
    """The image in RGB, mixed with the colours (K, 3) of a heat map (h, w) in [0, 1] drawn up to the image's size.

    `alpha` is the share of the heat map: 0 is the image alone, 1 the map alone.
    ValueError for a map of another shape or range, or an alpha outside [0, 1].
    """
    values = as_array(heat).astype(np.float32)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"heat has shape {values.shape}; give one map (h, w).")
    if not (values.min() >= -1e-4 and values.max() <= 1 + 1e-4):
        raise ValueError(
            f"heat runs from {values.min():.3g} to {values.max():.3g}; stretch it to [0, 1], by `stretched`."
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; give a share in [0, 1].")
    plain = image.convert("RGB")
    large = np.asarray(Image.fromarray(values).resize(plain.size, Image.Resampling.BILINEAR)).clip(0, 1)
    painted = colours[(large * (len(colours) - 1)).round().astype(np.intp)]
    mixed = (1 - alpha) * np.asarray(plain, dtype=np.float32) + alpha * painted
    return Image.fromarray(mixed.round().astype(np.uint8))


def as_array(heat: npt.ArrayLike) -> np.ndarray:
    """A map as an array, a tensor from any device and with any history included."""
    return np.asarray(heat.detach().cpu().double() if isinstance(heat, Tensor) else heat)


def stretched(heat: npt.ArrayLike) -> np.ndarray:
    """Maps (..., h, w) each drawn out to [0, 1] by its own lowest and highest value; a constant map becomes zeros.

    A map that is not finite somewhere becomes NaN.
    """
    values = as_array(heat).astype(np.float64)
    finite = np.isfinite(values).all((-2, -1), keepdims=True)
    values = np.where(finite, values, 0.0)
    low, high = values.min((-2, -1), keepdims=True), values.max((-2, -1), keepdims=True)
    span = high - low
    drawn = np.where(span > 0, (values - low) / np.where(span > 0, span, 1), 0.0)
    return np.where(finite, drawn, np.nan)
