"""Photos that stay on the network's device for a whole run: whether they may, and how they get there."""

from __future__ import annotations

import torch

from ssl_backbones.data import CachedImages, Images, ImageSourceError, ResidentImages
from ssl_backbones.recipes.recipe import Recipe

SHARE = 0.25
"""Of a GPU's memory, that photos may take from the network."""


def resident(images: Images, recipe: Recipe, device: torch.device) -> Images:
    """The same photos on the device, where the recipe wants it; ImageSourceError where they do not fit."""
    if not recipe.resident:
        return images
    if not isinstance(images, CachedImages):
        raise ImageSourceError(
            f"{recipe.data} was too large for the cache (--cache_limit {recipe.cache_limit:g} GB), and only a cache "
            "becomes resident: raise the limit, or leave out --resident"
        )
    needed, room = int(images.ends[-1]), SHARE * memory_of(device)
    if needed > room:
        raise ImageSourceError(
            f"{recipe.data} takes {needed / 1e9:.2f} GB as pixels, and photos may take {room / 1e9:.2f} GB of this "
            f"{device.type} device's memory: leave out --resident, and they come from the cache batch by batch"
        )
    return ResidentImages(images, device)


def memory_of(device: torch.device) -> float:
    """Bytes that the device has in all; without end where it is the host's, whose share the cache's limit sets."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else float("inf")
