"""Drawn images with one white object, whose EXIF data ask for a turn."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from ssl_backbones.data.upright import ORIENTATION

SIDES, BOX = (60, 40), (36, 6, 52, 16)
"""Sizes of the stored pixels and of the white object in them."""


def saved(levels: np.ndarray, turn: int, format: str = "PNG") -> bytes:
    """An image whose EXIF data ask for a turn; 1 for none at all."""
    exif = Image.Exif()
    if turn > 1:
        exif[ORIENTATION] = turn
    file = io.BytesIO()
    Image.fromarray(levels).save(file, format, exif=exif)
    return file.getvalue()


def stored_scene(seed: int = 0) -> np.ndarray:
    """Dark noise (H, W, 3) with the white object."""
    levels = np.random.default_rng(seed).integers(0, 80, (*SIDES[::-1], 3), np.uint8)
    left, top, right, bottom = BOX
    levels[top:bottom, left:right] = 255
    return levels
