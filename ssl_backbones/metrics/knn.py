"""Weighted nearest neighbours on frozen features. Wu et al., 2018. https://arxiv.org/abs/1805.01978"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

BLOCK = 1 << 26
"""How many similarities are held at once: 256 MiB of float32."""


@torch.no_grad()
def knn_predict(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    *,
    k: int = 200,
    temperature: float = 0.07,
    num_classes: int | None = None,
    exclude_self: bool = False,
) -> Tensor:
    """The class (M,) of each query (M, D) by a vote of its k nearest in the bank (N, D), labelled (N,).

    Nearness is cosine similarity s and a vote weighs exp(s / temperature), in float32 and up to a factor that keeps it
    from vanishing; beyond the bank itself, memory is bounded. A k larger than the bank is the whole bank.
    With `exclude_self` the queries are the bank, row for row, and none votes on itself. Ties go to the lower class.
    """
    classes = check(bank, bank_labels, queries, k, temperature, num_classes, exclude_self)
    k = min(k, len(bank) - exclude_self)
    bank, labels = bank.float(), bank_labels.to(bank.device)
    norms = torch.linalg.vector_norm(bank, dim=1).clamp_min(1e-12)
    rows = max(1, BLOCK // max(len(bank), classes))
    predictions = [torch.empty(0, dtype=torch.long, device=bank.device)]
    for start in range(0, len(queries), rows):
        block = normalize(queries[start : start + rows].to(bank.device).float(), dim=1)
        similarity = block @ bank.T / norms
        if exclude_self:
            similarity.diagonal(start).fill_(-torch.inf)
        nearest, at = similarity.topk(k, dim=1)
        votes = nearest.new_zeros(len(block), classes)
        votes.scatter_add_(1, labels[at], torch.exp((nearest - nearest[:, :1]) / temperature))
        predictions.append(votes.argmax(dim=1))
    return torch.cat(predictions).to(queries.device)


def knn_accuracy(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    *,
    k: int = 200,
    temperature: float = 0.07,
    num_classes: int | None = None,
    exclude_self: bool = False,
) -> float:
    """The share in [0, 1] of queries (M, D) whose class (M,) their neighbours in the bank (N, D) name."""
    if query_labels.shape != queries.shape[:1] or not len(queries):
        raise ValueError(
            f"query_labels are {tuple(query_labels.shape)}; give one for each of {len(queries)} queries, at least one."
        )
    named = knn_predict(
        bank, bank_labels, queries, k=k, temperature=temperature, num_classes=num_classes, exclude_self=exclude_self
    )
    return (named == query_labels.to(named.device)).double().mean().item()


def check(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    k: int,
    temperature: float,
    num_classes: int | None,
    exclude_self: bool,
) -> int:
    """The number of classes, once all else has been found in order."""
    if bank.ndim != 2 or queries.ndim != 2 or bank.shape[1] != queries.shape[1]:
        raise ValueError(
            f"bank is {tuple(bank.shape)} and queries are {tuple(queries.shape)}; give (N, D) and (M, D) of one D."
        )
    if not (bank.isfinite().all() and queries.isfinite().all()):
        raise ValueError("features hold NaN or infinity, where finite numbers are needed; look at the network's loss.")
    if labels.shape != bank.shape[:1] or labels.dtype != torch.long:
        raise ValueError(
            f"bank_labels are {labels.dtype} {tuple(labels.shape)}; give int64 ({len(bank)},), one for each row."
        )
    if len(bank) - exclude_self < 1:
        raise ValueError(f"the bank holds {len(bank)} features, which leaves no neighbour; give it more.")
    if exclude_self and bank.shape != queries.shape:
        raise ValueError(
            f"exclude_self with {len(queries)} queries and a bank of {len(bank)}; the two must be the same features."
        )
    if k < 1 or not temperature > 0:
        raise ValueError(f"k is {k} and temperature {temperature}; give k of at least 1 and a temperature above 0.")
    low, high = int(labels.min()), int(labels.max())
    classes = high + 1 if num_classes is None else num_classes
    if low < 0 or high >= classes:
        raise ValueError(f"bank_labels run from {low} to {high}; give them in 0..{classes - 1}, or more num_classes.")
    return classes
