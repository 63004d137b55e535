"""From levels to what a network takes."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(levels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(x / 255 - mean) / std in float32, channels-last (B, 3, H, W), of levels (B, 3, H, W)."""
    scale, shift = _affine(mean, std, levels.device)
    return levels.to(torch.float32, memory_format=torch.channels_last, copy=True).mul_(scale).add_(shift)


@lru_cache(maxsize=32)  # a fresh tensor per batch would wait for the device each time
def _affine(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):
        means, deviations = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (mean, std))
        scale, shift = 1 / (255 * deviations), -means / deviations
        return scale.to(device, torch.float32), shift.to(device, torch.float32)
