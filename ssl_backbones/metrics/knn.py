"""Weighted nearest neighbours on frozen features. Wu et al., 2018. https://arxiv.org/abs/1805.01978"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

BLOCK = 1 << 26
"""Similarities held at once: 256 MiB of float32."""
BANK_ROWS = 1 << 16
"""Rows of the bank compared at once: more queries share a pass over a large bank."""


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
    itself: Tensor | None = None,
) -> Tensor:
    """The class (M,) of each query (M, D) by a vote of its k nearest in the bank (N, D), labelled (N,).

    Nearness is cosine similarity s and a vote weighs exp(s / temperature), in float32 and up to a factor that keeps it
    from vanishing; beyond the bank itself, memory is bounded. A k larger than the bank is the whole bank.
    With `exclude_self` the queries are the bank, row for row, and none votes on itself; of a part of the bank, `itself`
    (M,) is each query's row there. Ties go to the lower class.
    ValueError for other queries than the bank there.
    """
    if exclude_self and bank.shape != queries.shape:
        raise ValueError(
            f"exclude_self with {len(queries)} queries and a bank of {len(bank)}; the two must be the same features."
        )
    itself = torch.arange(len(bank)) if exclude_self else itself
    swept = knn_sweep(
        bank, bank_labels, queries, ks=[k], temperatures=[temperature], num_classes=num_classes, itself=itself
    )
    return swept[0, 0]


@torch.no_grad()
def knn_sweep(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    *,
    ks: Sequence[int],
    temperatures: Sequence[float],
    num_classes: int | None = None,
    itself: Tensor | None = None,
) -> Tensor:
    """The class (K, T, M) that `knn_predict` names for every k and temperature, in one pass over the similarities.

    `itself` (M,) is the row of the bank that each query is, where the queries are of the bank: none votes on itself.
    """
    classes = check(bank, bank_labels, queries, ks, temperatures, num_classes, itself)
    labels = bank_labels.to(bank.device)
    norms = torch.cat([torch.linalg.vector_norm(part.float(), dim=1) for part in torch.split(bank, BANK_ROWS)])
    rows = max(1, BLOCK // max(min(len(bank), BANK_ROWS), classes))
    predictions = torch.empty(len(ks), len(temperatures), len(queries), dtype=torch.long, device=bank.device)
    for start in range(0, len(queries), rows):
        block = normalize(queries[start : start + rows].to(bank.device).float(), dim=1)
        own = None if itself is None else itself[start : start + rows].to(bank.device)
        similarity, at = nearest(bank, norms.clamp_min(1e-12), block, max(ks), own)
        for column, temperature in enumerate(temperatures):
            weights = torch.exp((similarity - similarity[:, :1]) / temperature)
            votes, counted = weights.new_zeros(len(block), classes), 0
            for k, row in sorted((k, row) for row, k in enumerate(ks)):
                votes.scatter_add_(1, labels[at[:, counted:k]], weights[:, counted:k])
                predictions[row, column, start : start + rows] = votes.argmax(dim=1)
                counted = k
    return predictions.to(queries.device)


def nearest(
    bank: Tensor, norms: Tensor, block: Tensor, k: int, itself: Tensor | None, less: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The similarities (m, k) of unit queries (m, D) to their nearest in the bank (N, D), falling, and its rows (m, k).

    A k larger than what can be neighbours is all of them. The bank's rows are compared `less` (D,) these numbers.
    """
    k = min(k, len(bank) - (itself is not None))
    best = block.new_empty(len(block), 0)
    rows = torch.empty(len(block), 0, dtype=torch.long, device=block.device)
    for start in range(0, len(bank), BANK_ROWS):
        part = slice(start, start + BANK_ROWS)
        rows_here = bank[part].float() if less is None else bank[part].float() - less
        similarity = block @ rows_here.T / norms[part]
        if itself is not None:
            here = (itself >= start) & (itself < start + similarity.shape[1])
            similarity[here, itself[here] - start] = -torch.inf
        values, at = similarity.topk(min(k, similarity.shape[1]), dim=1)
        values, at = torch.cat([best, values], dim=1), torch.cat([rows, at + start], dim=1)
        best, order = values.topk(min(k, values.shape[1]), dim=1)
        rows = at.gather(1, order)
    return best, rows


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
    """The share in [0, 1] of queries (M, D) whose class (M,) their neighbours in the bank (N, D) name.

    ValueError where labels and queries do not pair, or there are none.
    """
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
    ks: Sequence[int],
    temperatures: Sequence[float],
    num_classes: int | None,
    itself: Tensor | None,
) -> int:
    """The number of classes, once all else has been found in order."""
    if bank.ndim != 2 or queries.ndim != 2 or bank.shape[1] != queries.shape[1]:
        raise ValueError(
            f"bank is {tuple(bank.shape)} and queries are {tuple(queries.shape)}; give (N, D) and (M, D) of one D."
        )
    if not all(part.isfinite().all() for features in (bank, queries) for part in torch.split(features, BANK_ROWS)):
        raise ValueError("features hold NaN or infinity, where finite numbers are needed; look at the network's loss.")
    if labels.shape != bank.shape[:1] or labels.dtype != torch.long:
        raise ValueError(
            f"bank_labels are {labels.dtype} {tuple(labels.shape)}; give int64 ({len(bank)},), one for each row."
        )
    if len(bank) - (itself is not None) < 1:
        raise ValueError(f"the bank holds {len(bank)} features, which leaves no neighbour; give it more.")
    if itself is not None and itself.shape != queries.shape[:1]:
        raise ValueError(f"itself is {tuple(itself.shape)}; give the row of each of {len(queries)} queries.")
    if not ks or not temperatures:
        raise ValueError(f"ks are {list(ks)} and temperatures {list(temperatures)}; give at least one of each.")
    k, temperature = min(ks), min(temperatures)
    if k < 1 or not temperature > 0:
        raise ValueError(f"k is {k} and temperature {temperature}; give k of at least 1 and a temperature above 0.")
    low, high = int(labels.min()), int(labels.max())
    classes = high + 1 if num_classes is None else num_classes
    if low < 0 or high >= classes:
        raise ValueError(f"bank_labels run from {low} to {high}; give them in 0..{classes - 1}, or more num_classes.")
    return classes
