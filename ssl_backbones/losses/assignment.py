"""Losses that tell views by the prototypes that they belong to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ssl_backbones.losses.precision import in_single_precision


@torch.no_grad()
@in_single_precision
def sinkhorn(
    scores: Tensor,
    epsilon: float = 0.05,
    iterations: int = 3,
    counted: Tensor | None = None,
    gathered: Callable[[Tensor], Tensor] = lambda part: part,
) -> Tensor:
    """Assignments Q (B, K) of samples to prototypes by their cosines (B, K): rows sum to one, columns nearly to B / K.

    SwAV (Caron et al., 2020), eq. 3 to 5, by the algorithm of Sinkhorn and Knopp, in logarithms: divided by a small
    epsilon, cosines have no exponential in single precision. Rows whose `counted` (B,) is 0 take no part, and are 0.
    `gathered` stacks the rows (1, K) of all processes that share the samples.
    """
    log_q, kept = scores / epsilon, torch.ones_like(scores[:, 0]) if counted is None else counted
    for _ in range(iterations):
        columns = (log_q + kept.log()[:, None]).logsumexp(0, keepdim=True)
        log_q = (log_q - gathered(columns).logsumexp(0)).log_softmax(1)
    return log_q.exp() * kept[:, None]


@in_single_precision
def swapped_prediction(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the logits (V, B, K) of V views with the targets (A, B, K) of the first A of them.

    Mean over B and the A (V - 1) pairs of a target and another view: SwAV (Caron et al., 2020), eq. 2 and 6, and DINO
    (Caron et al., 2021), eq. 3, with the mean of the authors' codes. Targets get no gradient.
    """
    targets, likely = targets.detach(), (logits / temperature).log_softmax(2)
    own = (targets * likely[: len(targets)]).sum()
    pairs = (targets.sum(0) * likely.sum(0)).sum() - own
    return -pairs / (len(targets) * (len(logits) - 1) * logits.shape[1])
