"""Masks as pycocotools packs them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Runs = dict[str, Any]
"""One mask: its height and width, and its runs of pixels."""


def packed(masks: NDArray[np.uint8]) -> list[Runs]:
    """Masks (N, H, W) of 0 and 1 as runs of pixels."""
    from pycocotools import mask as runs

    if not len(masks):
        return []
    found: list[Runs] = runs.encode(np.asfortranarray(masks.transpose(1, 2, 0)))
    return found


def unpacked(masks: Sequence[Runs]) -> NDArray[np.uint8]:
    """Masks (N, H, W) of 0 and 1; (0, 1, 1) where there are none."""
    from pycocotools import mask as runs

    if not masks:
        return np.zeros((0, 1, 1), np.uint8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # of pycocotools 2.0.11
        drawn = runs.decode(list(masks))
    return np.ascontiguousarray(drawn.transpose(2, 0, 1))
