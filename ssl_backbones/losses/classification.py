"""Losses that name one of several classes, or tell true from false."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import softplus

from ssl_backbones.losses.precision import in_single_precision


@in_single_precision
def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None, total: Tensor | None = None) -> Tensor:
    """Cross-entropy of logits (B, C) and labels (B,), mean over B; with weights (C,), each row by its label's.

    The weights of the rows are divided by their sum, or by `total` where more rows than these B have a part in that.
    """
    if total is None:
        return functional.cross_entropy(logits, labels, weights)
    return functional.cross_entropy(logits, labels, weights, reduction="sum") / total


@in_single_precision
def discriminator_loss(true: Tensor, false: Tensor) -> Tensor:
    """-log s(t), mean over true logits t (...), plus -log(1 - s(f)), mean over false logits f (...).

    Goodfellow et al., 2014, eq. 1; and, up to the constant 2 log 2, the Jensen-Shannon estimate of mutual information
    that Deep InfoMax (Hjelm et al., 2019) descends. Logits of 0 score 2 log 2.
    """
    return softplus(-true).mean() + softplus(false).mean()


@in_single_precision
def generator_loss(false: Tensor) -> Tensor:
    """-log s(f), mean over false logits f (...) to be taken for true ones. Goodfellow et al., 2014, section 3."""
    return softplus(-false).mean()


@torch.no_grad()
def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of rows (B, C) whose largest logit is their label's (B,)."""
    return (logits.argmax(1) == labels).float().mean()
