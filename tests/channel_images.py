"""Small images of several channels and 16 bits, alike for a number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from conftest import drawn_image

UINT16 = np.dtype(np.uint16)


def drawn_values(number: int, height: int, width: int, channels: int, kind: np.dtype = UINT16) -> np.ndarray:
    """Values (H, W, C) with what images have, and all bits of an unsigned type in use."""
    pictures = [np.asarray(drawn_image(number + at, width, height)) for at in range(-(-channels // 3))]
    levels = np.concatenate(pictures, axis=2)[..., :channels].astype(np.float64)
    grain = np.random.default_rng(number).uniform(0, 1, levels.shape)
    return ((levels + grain) / 256 * np.iinfo(kind).max).astype(kind)


def channel_folder(root: Path, count: int, channels: int = 4, classes: tuple[str, ...] = ()) -> Path:
    """A folder of .npy images of 16 bits, in class folders where there are classes."""
    for number in range(count):
        below = root / classes[number % len(classes)] if classes else root
        below.mkdir(parents=True, exist_ok=True)
        np.save(below / f"{number:02}.npy", drawn_values(number, 24 + number % 5, 28, channels))
    return root
