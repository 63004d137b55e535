"""Colour maps in equal steps of perceived colour, readable by the colour-blind: lightness alone tells the order.

The space is OKLab. Ottosson, 2020. https://bottosson.github.io/posts/oklab/
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LAB_TO_LMS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def palette(anchors: Sequence[tuple[float, float, float]], steps: int = 256) -> np.ndarray:
    """Colours (steps, 3) uint8 at equal distances along the polyline through anchors (lightness, a, b) of OKLab."""
    points = np.asarray(anchors, dtype=np.float64)
    travelled = np.concatenate([[0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
    at = np.linspace(0, travelled[-1], steps)
    lab = np.stack([np.interp(at, travelled, axis) for axis in points.T], axis=1)
    light = ((lab @ LAB_TO_LMS.T) ** 3 @ LMS_TO_RGB.T).clip(0, 1)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    colours: np.ndarray = (255 * coded).round().astype(np.uint8)
    return colours


DAWN = palette(
    [
        (0.18, 0.01, -0.08),
        (0.335, 0.07, -0.14),
        (0.49, 0.15, -0.06),
        (0.645, 0.15, 0.07),
        (0.79, 0.06, 0.13),
        (0.94, -0.02, 0.11),
    ]
)
"""Night blue over violet and orange to pale yellow, dark for 0 and light for 1."""
