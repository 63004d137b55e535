"""From levels to what a network takes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

from ssl_backbones.refusal import Refusal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


Values = TypeVar("Values", list[float], tuple[float, ...])


class ChannelError(Refusal, ValueError):
    """Images of other channels than a network takes, or views that are not defined for them."""


def for_channels(values: Values, channels: int) -> Values:
    """A mean or a deviation of each of so many channels, repeated or cut where they were others."""
    return (values * channels)[:channels]


def normalise(levels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x / 255 - mean) / std in float32, channels-last (B, C, H, W), of levels (B, C, H, W).

    ChannelError where there is neither one mean for all channels nor one for each.
    """
    if len(mean) not in (1, levels.shape[1]):
        raise ChannelError(
            f"images of {levels.shape[1]} channels are shown to a network of {len(mean)}: --in_chans {len(mean)} reads "
            "images of as many, TIFF, .npy or PNG, where the command has that option"
        )
    scale, shift = _affine(tuple(mean), tuple(std), levels.device)
    return levels.to(torch.float32, memory_format=torch.channels_last, copy=True).mul_(scale).add_(shift)


@lru_cache(maxsize=32)  # a fresh tensor per batch would wait for the device each time
def _affine(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):
        means, deviations = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (mean, std))
        scale, shift = 1 / (255 * deviations), -means / deviations
        return scale.to(device, torch.float32), shift.to(device, torch.float32)
