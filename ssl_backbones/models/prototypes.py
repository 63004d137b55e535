"""Prototypes: directions that embeddings are compared with, which may stand still at first."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from ssl_backbones.losses.precision import widened
from ssl_backbones.products import exact_products


class Prototypes(nn.Module):
    """Directions (K, D) that do not move in the first `frozen` steps.

    Unit vectors either because they are brought back to the sphere after each step (SwAV: Caron et al., 2020), or by
    `weight_norm`, wherever they are used and with the gradient of that (DINO: Caron et al., 2021).
    """

    steps: Tensor
    """Optimiser steps made."""

    def __init__(self, count: int, dim: int, frozen: int = 0, weight_norm: bool = False) -> None:
        super().__init__()
        drawn = nn.Linear(dim, count, bias=False).weight.detach()
        self.weight = nn.Parameter(drawn if weight_norm else normalize(drawn, dim=1))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.frozen, self.weight_norm = frozen, weight_norm

    def forward(self, embeddings: Tensor) -> Tensor:
        """The cosines (..., K) of unit vectors (..., D), in single precision at least and without TF32.

        Prototypes that stand still have a gradient of exactly zero, for processes wait for one that is missing; what
        decay and momentum do to them is radial.
        """
        moves, still = (self.steps >= self.frozen).to(self.weight.dtype), self.weight.detach()
        weight = still + moves * (self.weight - still)
        with torch.autocast(embeddings.device.type, enabled=False), exact_products():
            directions = widened(weight)
            return linear(widened(embeddings), normalize(directions, dim=1) if self.weight_norm else directions)

    @torch.no_grad()
    def step(self) -> None:
        """Follow the optimiser's step."""
        self.steps.add_(1)
        if not self.weight_norm:
            self.weight.copy_(normalize(self.weight, dim=1))
