"""Losses that tell an image from all others by a memory with an embedding of each. Wu et al., 2018."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ssl_backbones.losses.parts import in_parts, rows_at_once
from ssl_backbones.losses.precision import in_single_precision

EPSILON = 1e-7
"""Added to the denominators of `instance_nce`, as the authors' code has it."""


@in_single_precision
def instance_softmax(embeddings: Tensor, memory: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of embeddings (B, D) with their images' rows (B,) of the memory (N, D), mean over B.

    InstDisc (Wu et al., 2018), eq. 2. Embeddings and memory are taken as they are.
    """

    def summed(part: Tensor, own: Tensor) -> Tensor:
        return cross_entropy((part @ memory.T).div_(temperature), own, reduction="sum")

    sums = in_parts(summed, (embeddings, rows), rows_at_once(len(memory)))
    return torch.stack(sums).sum() / len(embeddings)


@in_single_precision
def instance_exponentials(embeddings: Tensor, memory: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """exp(v.v_i / tau) (B, R) of embeddings (B, D) with rows (B, R) of the memory (N, D). Wu et al., 2018, eq. 4."""

    def products(part: Tensor, at: Tensor) -> Tensor:
        return torch.bmm(memory[at], part[:, :, None])[:, :, 0]

    found = in_parts(products, (embeddings, rows), rows_at_once(rows.shape[1] * memory.shape[1]))
    return (torch.cat(found) / temperature).exp()


@in_single_precision
def instance_nce(exponentials: Tensor, normaliser: Tensor, images: int) -> Tensor:
    """NCE of the exponentials (B, 1 + m) of each embedding with its own row and m others, of N images, mean over B.

    InstDisc (Wu et al., 2018), eq. 5 to 7: P = exp(v.v_i / tau) / Z, with a constant normaliser Z (scalar) and noise
    drawn evenly, so that h = P / (P + m / N).
    """
    likelihoods, noise = exponentials / normaliser, (exponentials.shape[1] - 1) / images  # P, m Pn
    own = (likelihoods[:, 0] / (likelihoods[:, 0] + noise + EPSILON)).log()
    others = (noise / (likelihoods[:, 1:] + noise + EPSILON)).log()
    return -(own + others.sum(1)).mean()
