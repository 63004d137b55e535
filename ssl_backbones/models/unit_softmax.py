"""LEWEL's alignment maps of its head's scores, in fewer passes over memory than the operations they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

EPS = 1e-12
"""No score is divided by less."""
FEW = 16
"""On a grid of so few positions the plain form is as fast."""
AT_ONCE = 2**17
"""Scores that a CPU's cache holds in all the forms that are made of them."""
SHARPEST = 0.05
"""Below this scale the largest logit is subtracted first, as exponentials may overflow single precision."""


def unit_softmax(scores: Tensor, scale: float) -> Tensor:
    """Maps (B, P, c) of scores: each position's brought to unit length, over the scale, in a softmax over positions.

    Half precision gives single precision. A compiler fuses the plain form itself.
    """
    if scores.shape[1] <= FEW or scale < SHARPEST or torch.compiler.is_compiling():
        return plain(scores, scale)
    maps: Tensor = UnitSoftmax.apply(scores, scale)
    return maps


def plain(scores: Tensor, scale: float) -> Tensor:
    """The same as it is written. Huang et al., 2022, section 3.2."""
    return (normalize(at_least_single(scores), dim=2, eps=EPS) / scale).softmax(1)


def at_least_single(scores: Tensor) -> Tensor:
    """Scores in single precision, or better where they are."""
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


class UnitSoftmax(torch.autograd.Function):
    """S = softmax_p(x_p / (|x_p| t)); no logit is above 1 / t, so none has to be taken off before the exponential.

    With gradient G, D = S (G - sum_p G S) / t and u = x / |x|, the gradient of x is (D - u <u, D>) / |x|.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, scale: float) -> Tensor:
        maps = torch.empty_like(scores, dtype=at_least_single(scores[:0]).dtype, memory_format=torch.contiguous_format)
        inverse = maps.new_empty(*maps.shape[:2], 1)  # 1 / |x|: (B, P, 1)
        for x, s, inv in by_parts(scores, maps, inverse):
            s.copy_(x)
            inv.copy_(s.norm(dim=2, keepdim=True)).clamp_min_(EPS).reciprocal_()
            s.mul_(inv / scale).exp_()
            s.div_(s.sum(1, keepdim=True))
        ctx.save_for_backward(scores, inverse, maps)
        ctx.scale = scale
        return maps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        scores, inverse, maps = ctx.saved_tensors
        of_scores = torch.empty_like(scores, memory_format=torch.contiguous_format)
        for found, g, x, inv, s in by_parts(of_scores, gradient, scores, inverse, maps):
            d = g.contiguous() * s  # as pooling leaves it, its rows lie apart
            d.addcmul_(s, d.sum(1, keepdim=True), value=-1)
            wide = at_least_single(x)
            along = (d * wide).sum(2, keepdim=True).mul_(inv.square())  # (B, P, 1): <u, D> / |x|
            along.masked_fill_(inv >= 1 / EPS, 0)  # so short a position is only scaled
            found.copy_(d.addcmul_(wide, along, value=-1).mul_(inv / ctx.scale))
        return of_scores, None


def by_parts(scores: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors (B, ...) a few images at a time on a CPU, for whose cache the whole is too large; elsewhere at once."""
    images = max(1, AT_ONCE // scores[0].numel()) if scores.device.type == "cpu" else len(scores)
    return zip(*(torch.split(tensor, images) for tensor in (scores, *others)), strict=True)
