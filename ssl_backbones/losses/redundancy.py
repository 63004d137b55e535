"""Losses that keep the columns of a batch of embeddings alive and unlike one another.

Their statistics are over all rows that they are given: hand them those of the whole batch.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from ssl_backbones.losses.precision import in_single_precision


@in_single_precision
def barlow_twins(first: Tensor, second: Tensor, off_diagonal: float = 0.005) -> Tensor:
    """The distance of the cross-correlation (D, D) of two views' embeddings (B, D) from the identity.

    Barlow Twins (Zbontar et al., 2021), eq. 1 and 2: sum_i (1 - C_ii)^2 + off_diagonal * sum_{i != j} C_ij^2.
    """
    correlation = standardised(first).T @ standardised(second)  # C
    diagonal = correlation.diagonal()
    invariance = (1 - diagonal).square().sum()
    redundancy = correlation.square().sum() - diagonal.square().sum()
    return invariance + off_diagonal * redundancy


def standardised(rows: Tensor) -> Tensor:
    """Rows (B, D) with columns of mean zero and length one; a constant column becomes zero."""
    return normalize(rows - rows.mean(0), dim=0, eps=1e-12)


@in_single_precision
def vicreg(
    first: Tensor,
    second: Tensor,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    target: float = 1.0,
    eps: float = 1e-4,
) -> Tensor:
    """invariance * s(Z, Z') + variance * (v(Z) + v(Z')) + covariance * (c(Z) + c(Z')) of two views' embeddings (B, D).

    Of embeddings (B, ..., D) it is the mean over what lies between: each position's columns vary over images.

    VICReg (Bardes et al., 2022), eq. 6. s is the squared distance of paired embeddings, mean over columns too as in the
    paper's algorithm 1 (eq. 5 sums over them; the weights are for the mean).
    """
    spread = below(first, target, eps) + below(second, target, eps)
    return (
        invariance * mse_loss(first, second)
        + variance * spread
        + covariance * (covariances(first) + covariances(second))
    )


def below(rows: Tensor, target: float, eps: float) -> Tensor:
    """v: how far the columns' standard deviations over rows (B, ..., D) are below the target, mean. Eq. 1 and 2.

    ValueError for a single row, which has none.
    """
    if len(rows) < 2:
        raise ValueError("VICReg's variances are over images, and the batch has one: give batches of 2 or more")
    return (target - (rows.var(0) + eps).sqrt()).relu().mean()


def covariances(rows: Tensor) -> Tensor:
    """c: the squares of the covariances between different columns of rows (B, ..., D), summed, over D. Eq. 3 and 4."""
    centred = (rows - rows.mean(0)).movedim(0, -2)
    matrix = centred.mT @ centred / (len(rows) - 1)
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    return (matrix.square().sum() - diagonal.square().sum()) / diagonal.numel()
