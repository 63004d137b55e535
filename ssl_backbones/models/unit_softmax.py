"""LEWEL's alignment maps of its head's scores, in fewer passes over memory than the operations they are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

EPS = 1e-12
"""No score is divided by less."""
FEW = 16
"""On a grid of so few positions the plain form is as fast."""
SHARPEST = 0.05
"""Of a smaller scale, the exponentials need their largest taken off first: they may not fit single precision."""


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
        wide = at_least_single(scores)
        inverse = wide.norm(dim=2, keepdim=True).clamp_min_(EPS).reciprocal_()  # (B, P, 1)
        maps = wide.mul(inverse / scale).exp_()
        maps.div_(maps.sum(1, keepdim=True))
        ctx.save_for_backward(scores, inverse, maps)
        ctx.scale = scale
        return maps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        scores, inverse, maps = ctx.saved_tensors
        of_logits = gradient.contiguous() * maps  # as pooling leaves it, its rows lie apart
        of_logits.addcmul_(maps, of_logits.sum(1, keepdim=True), value=-1)
        wide = at_least_single(scores)
        along = (of_logits * wide).sum(2, keepdim=True).mul_(inverse.square())  # (B, P, 1): <u, D> / |x|
        along.masked_fill_(inverse >= 1 / EPS, 0)  # so short a position is only scaled
        of_logits.addcmul_(wide, along, value=-1).mul_(inverse / ctx.scale)
        return of_logits.to(scores.dtype), None
