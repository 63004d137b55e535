"""The patches of timm's transformers, and the feature maps of any network as its last features hold them."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn


def patch_of(network: nn.Module) -> int:
    """The side of a transformer's patches; 1 for a network that has none, or whose patches overlap."""
    embed: Any = getattr(network, "patch_embed", None)
    size = first_of(getattr(embed, "patch_size", 1))
    return size if first_of(getattr(getattr(embed, "proj", None), "stride", size)) == size else 1


def first_of(sides: Any) -> int:
    """The first of two sides, or the one that there is."""
    return int(sides[0] if isinstance(sides, tuple | list) else sides)


def parts(network: nn.Module, last: Any) -> tuple[Tensor | None, Tensor | None]:
    """Tokens before the patches (B, P, D) and feature maps (B, D, h, w) of a network's last features; None for none.

    Maps may come with channels last (B, h, w, D), and patches as tokens (B, P + h w, D).
    """
    if not isinstance(last, Tensor) or last.ndim not in (3, 4):
        return None, None
    if last.ndim == 4:
        return None, last if last.shape[1] == network.num_features else last.permute(0, 3, 1, 2)
    count = int(getattr(network, "num_prefix_tokens", 0))
    prefix, patches = last[:, :count], last[:, count:]
    side = math.isqrt(patches.shape[1])
    maps = patches.transpose(1, 2).unflatten(2, (side, side)) if side * side == patches.shape[1] > 0 else None
    return (prefix if count else None), maps
