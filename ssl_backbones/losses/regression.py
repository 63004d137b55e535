"""Losses that predict one view's embedding from another's."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cosine_similarity, smooth_l1_loss

from ssl_backbones.losses.precision import in_single_precision


@in_single_precision
def cosine_distance(predictions: Tensor, targets: Tensor) -> Tensor:
    """The squared distance of unit vectors, 2 - 2 cos, of predictions and targets (..., D), mean over rows, in [0, 4].

    BYOL (Grill et al., 2020), eq. 2; LEWEL (Huang et al., 2022), eq. 5. The targets get no gradient.
    """
    return (2 - 2 * cosine_similarity(predictions, targets.detach(), dim=-1, eps=1e-12)).mean()


@in_single_precision
def map_distance(predictions: Tensor, targets: Tensor) -> Tensor:
    """0.9 (1 - cos) + 0.1 smooth L1 of feature maps (B, D, h, w), mean over cells. The targets get no gradient.

    AM-RADIO (Ranzinger et al., 2024).
    """
    apart = 1 - cosine_similarity(predictions, targets.detach(), dim=1, eps=1e-12).mean()
    return 0.9 * apart + 0.1 * smooth_l1_loss(predictions, targets.detach())
