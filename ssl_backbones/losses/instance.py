"""Losses that tell an image from all others by a memory with an embedding of each. Wu et al., 2018."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from ssl_backbones.losses.precision import in_single_precision
from ssl_backbones.products import exact_products

AT_ONCE = 2**26
"""Logits, or numbers read from the memory, that are held at once; more are made part by part, again for the gradient.
"""
EPSILON = 1e-7
"""Added to the denominators of `instance_nce`, as the authors' code has it."""


@in_single_precision
def instance_softmax(embeddings: Tensor, memory: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of embeddings (B, D) with their images' rows (B,) of the memory (N, D), mean over B.

    InstDisc (Wu et al., 2018), eq. 2. Embeddings and memory are taken as they are.
    """

    def summed(part: Tensor, own: Tensor) -> Tensor:
        with exact_products():  # again where the gradient is computed
            return cross_entropy(part @ memory.T / temperature, own, reduction="sum")

    count = max(1, AT_ONCE // len(memory))
    if len(embeddings) <= count:
        return summed(embeddings, rows) / len(embeddings)
    parts = zip(embeddings.split(count), rows.split(count), strict=True)
    sums = [checkpoint(summed, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.stack(sums).sum() / len(embeddings)


@in_single_precision
def instance_exponentials(embeddings: Tensor, memory: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """exp(v.v_i / tau) (B, R) of embeddings (B, D) with rows (B, R) of the memory (N, D). Wu et al., 2018, eq. 4."""

    def products(part: Tensor, at: Tensor) -> Tensor:
        with exact_products():  # again where the gradient is computed
            return torch.bmm(memory[at], part[:, :, None])[:, :, 0]

    count = max(1, AT_ONCE // (rows.shape[1] * memory.shape[1]))
    if len(embeddings) <= count:
        return (products(embeddings, rows) / temperature).exp()
    parts = zip(embeddings.split(count), rows.split(count), strict=True)
    found = [checkpoint(products, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
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
