"""Mean intersection over union, from one confusion matrix over a whole data set.

Everingham et al., 2015, section 4.2 (https://doi.org/10.1007/s11263-014-0733-5); intervals by the bootstrap over
images (Efron, 1979. https://doi.org/10.1214/aos/1176344552).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_backbones.metrics import Interval, percentile_interval

BLOCK = 100
"""Resamples added up at a time."""


@dataclass(frozen=True)
class Overlaps:
    """Predicted against true classes of N images and K classes, ignored pixels left out."""

    confusion: NDArray[np.int64]
    """(K, K) pixels of all images, by true and by predicted class."""
    images: NDArray[np.int64]
    """(N, 3, K) pixels of each image: truly of the class and found to be, predicted, true."""


def confusion_of(predicted: Tensor, true: Tensor, classes: int) -> Tensor:
    """Pixels (K, K) by true and by predicted class, of predictions and masks (H, W); values from K on do not count."""
    known = true < classes
    return torch.bincount(true[known] * classes + predicted[known], minlength=classes**2).view(classes, classes)


def marginals(confusion: Tensor) -> Tensor:
    """Pixels (3, K): truly of the class and found to be, predicted, true."""
    return torch.stack([confusion.diagonal(), confusion.sum(dim=0), confusion.sum(dim=1)])


def iou(pixels: NDArray[np.number]) -> NDArray[np.float64]:
    """Intersection over union (..., K) of pixels (..., 3, K); NaN for a class neither predicted nor there."""
    both, predicted, true = np.moveaxis(np.asarray(pixels, np.float64), -2, 0)
    union = predicted + true - both
    found: NDArray[np.float64] = np.divide(both, union, out=np.full_like(union, np.nan), where=union > 0)
    return found


def mean_iou(pixels: NDArray[np.number]) -> NDArray[np.float64]:
    """The mean (...) over the classes that are predicted or there; NaN where none is."""
    each = iou(pixels)
    there = np.isfinite(each)
    count = there.sum(axis=-1).astype(np.float64)
    total = np.where(there, each, 0.0).sum(axis=-1)
    found: NDArray[np.float64] = np.divide(total, count, out=np.full_like(count, np.nan), where=count > 0)
    return found


def pixel_accuracy(pixels: NDArray[np.number]) -> NDArray[np.float64]:
    """The share (...) of known pixels that are told rightly; NaN where none is known."""
    both, _, true = np.moveaxis(np.asarray(pixels, np.float64), -2, 0).sum(axis=-1)
    found: NDArray[np.float64] = np.divide(both, true, out=np.full_like(true, np.nan), where=true > 0)
    return found


def estimates(overlaps: Overlaps, resamples: int, seed: int) -> tuple[Interval, Interval, list[Interval | None]]:
    """Mean IoU, pixel accuracy, and the IoU of each class, None for one that is neither predicted nor there.

    Intervals are percentiles over resamples of the images with replacement, each added up anew.
    """
    total, drawn = overlaps.images.sum(axis=0), resampled(overlaps.images, resamples, seed)
    each, each_drawn = iou(total), iou(drawn)
    per_class = [
        percentile_interval(each[k], each_drawn[:, k]) if np.isfinite(each[k]) else None for k in range(total.shape[-1])
    ]
    overall = percentile_interval(float(mean_iou(total)), mean_iou(drawn))
    return overall, percentile_interval(float(pixel_accuracy(total)), pixel_accuracy(drawn)), per_class


def resampled(images: NDArray[np.int64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Pixels (R, 3, K) of R draws of as many images, out of (N, 3, K)."""
    stream, count = np.random.default_rng(seed), len(images)
    flat = images.reshape(count, -1).astype(np.float64)
    parts = []
    for start in range(0, resamples, BLOCK):
        rows = min(BLOCK, resamples - start)
        parts.append(stream.multinomial(count, np.full(count, 1 / count), size=rows).astype(np.float64) @ flat)
    return np.concatenate(parts).reshape(resamples, *images.shape[1:])
