"""A feature pyramid on a backbone's last maps, thrown away after training. Lin et al., 2017."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate


class Pyramid(nn.Module):
    """Maps of one width, each with what coarser ones know: (B, C_i, h_i, w_i), finest first, to (B, D, h_i, w_i).

    The coarsest is handed down alone, and has no output of its own.
    """

    def __init__(self, widths: Sequence[int], dim: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in widths)
        self.output = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in widths[:-1])
        for layer in (*self.lateral, *self.output):
            nn.init.kaiming_uniform_(layer.weight, a=1)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        handed = self.lateral[-1](maps[-1])
        found: list[Tensor] = []
        for lateral, output, one in reversed(list(zip(self.lateral, self.output, maps[:-1], strict=False))):
            handed = lateral(one) + interpolate(handed, size=one.shape[2:], mode="nearest")
            found.append(output(handed))
        return found[::-1]


def last_maps(backbone: nn.Module, images: Tensor, count: int) -> list[Tensor]:
    """The last feature maps (B, C_i, h_i, w_i) that a backbone makes of images (B, 3, H, W), finest first."""
    maps: list[Tensor] = backbone.forward_intermediates(images, indices=count, intermediates_only=True)  # type: ignore[operator]
    return maps


def last_widths(backbone: nn.Module, count: int) -> list[int]:
    """The channels of a backbone's last feature maps, finest first."""
    info: Any = backbone.feature_info
    return [one["num_chs"] for one in list(info)[-count:]]
