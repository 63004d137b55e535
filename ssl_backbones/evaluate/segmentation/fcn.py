"""A dilated backbone, and a fully convolutional head on its maps. Long et al., 2015. https://arxiv.org/abs/1411.4038"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import ssl_backbones
from ssl_backbones.catalogue.lookup import architecture_of
from ssl_backbones.models.build import as_drawn
from ssl_backbones.refusal import Refusal, reason
from ssl_backbones.train.prepare import UnfitError

STRIDES = (0, 1, 2, 4, 8, 16, 32)


def dilated(model: str, pretrained: bool, output_stride: int, given: nn.Module | None = None) -> nn.Module:
    """The model's last two feature maps (B, C, h, w), the last of them at no more than `output_stride`; 0 leaves it be.

    A given network of the same kind brings weights and description in place of the model's own. UnfitError for a model
    that has no such maps.
    """
    stride: dict[str, Any] = {"output_stride": output_stride} if output_stride else {}
    weights: dict[str, Any] = {} if pretrained else as_drawn(architecture_of(model))
    if given is not None:
        described: Any = given.pretrained_cfg
        weights["pretrained_cfg_overlay"] = {**described, "source": None, "state_dict": given.state_dict()}
    try:
        backbone: nn.Module = ssl_backbones.create_model(
            model, pretrained, features_only=True, out_indices=(-2, -1), **stride, **weights
        )
        with torch.no_grad():
            maps = backbone.eval()(torch.zeros(1, 3, 64, 64))
    except Refusal:
        raise
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise UnfitError(
            f"{model!r} gives no feature maps at stride {output_stride or 'its own'} ({reason(error)}): take a "
            "convolutional network, or leave its strides as they are with --task.output_stride 0"
        ) from error
    if any(part.ndim != 4 or part.shape[1] != width for part, width in zip(maps, widths_of(backbone), strict=True)):
        raise UnfitError(f"{model!r} gives maps {[tuple(part.shape) for part in maps]}, and (B, C, h, w) are needed")
    return backbone.train()


def widths_of(backbone: nn.Module) -> list[int]:
    """The channels of the last two feature maps."""
    info: Any = backbone.feature_info
    return list(info.channels())


class FCNHead(nn.Module):
    """3x3 convolutions with BatchNorm and ReLU, and a class for each position: maps (B, C, h, w) to (B, K, h, w).

    With `concat`, the maps join the convolutions' and one more convolution mixes them, as in mmsegmentation.
    """

    def __init__(
        self, width: int, channels: int, classes: int, convs: int, dilation: int, concat: bool, dropout: float
    ) -> None:
        super().__init__()
        widths = [width, *[channels] * convs]
        self.convs = nn.Sequential(*(unit(before, after, dilation) for before, after in pairwise(widths)))
        self.mix = unit(width + widths[-1], channels, 1) if concat else None
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]

    def forward(self, maps: Tensor) -> Tensor:
        x = self.convs(maps)
        if self.mix is not None:
            x = self.mix(torch.cat([maps, x], dim=1))
        scores: Tensor = self.classify(self.dropout(x))
        return scores


def unit(before: int, after: int, dilation: int) -> nn.Sequential:
    """A 3x3 convolution that keeps the size of its maps, BatchNorm and ReLU."""
    conv = nn.Conv2d(before, after, 3, padding=dilation, dilation=dilation, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def enlarged(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Scores (B, K, h, w) at (B, K, H, W): bilinear between the centres of pixels, in training as in testing."""
    return nn.functional.interpolate(scores.float(), tuple(size), mode="bilinear", align_corners=False)
