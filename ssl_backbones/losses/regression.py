"""Losses that predict one view's embedding from another's."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cosine_similarity

from ssl_backbones.losses.precision import in_single_precision


@in_single_precision
def cosine_distance(predictions: Tensor, targets: Tensor) -> Tensor:
    """The squared distance of unit vectors, 2 - 2 cos, of predictions and targets (..., D), mean over rows, in [0, 4].

    BYOL (Grill et al., 2020), eq. 2; LEWEL (Huang et al., 2022), eq. 5. The targets get no gradient.
    """
    return (2 - 2 * cosine_similarity(predictions, targets.detach(), dim=-1, eps=1e-12)).mean()
