"""Multinomial logistic regression, fitted by L-BFGS to the least of a convex function: nothing in it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

ROWS = 1 << 16
"""Features taken up at a time: beyond the features themselves, memory is bounded."""
STEPS, HISTORY, TOLERANCE = 1000, 10, 1e-6
"""Settings of L-BFGS, which stops where no entry of the gradient is larger than the tolerance."""


@dataclass(frozen=True)
class Classifier:
    """A linear classifier of standardised features."""

    mean: Tensor
    """(D,)"""
    scale: Tensor
    """(D,) one over the deviation; 1 for what does not vary."""
    weight: Tensor
    """(C, D)"""
    bias: Tensor
    """(C,)"""
    converged: bool
    """True if the gradient vanished."""

    def logits(self, rows: Tensor) -> Tensor:
        """Scores (n, C) of features (n, D)."""
        return ((rows.to(self.mean.dtype) - self.mean) * self.scale) @ self.weight.T + self.bias

    def predict(self, rows: Tensor, among: Tensor | None = None) -> Tensor:
        """The class (N,) of features (N, D), or (n,) of those `among` them (n,)."""
        return torch.cat([self.logits(rows[at]).argmax(dim=1) for at in parts(len(rows), among)])


def fit_classifier(
    rows: Tensor,
    labels: Tensor,
    classes: int,
    weight_decay: float,
    start: Classifier | None = None,
    among: Tensor | None = None,
) -> Classifier:
    """The classifier of features (N, D) with labels (N,) that makes the mean cross-entropy + l/2 |W|^2 least.

    `among` are the rows (n,) that count, all without it. `start` only shortens the way. A CPU computes in double
    precision, other devices in single.
    """
    dtype = torch.float64 if rows.device.type == "cpu" else torch.float32
    mean, scale = standard(rows, dtype, among)
    count = len(rows) if among is None else len(among)
    zeros = rows.new_zeros(classes, rows.shape[1], dtype=dtype), rows.new_zeros(classes, dtype=dtype)
    begun = zeros if start is None else (start.weight.clone(), start.bias.clone())
    weight, bias = (part.requires_grad_() for part in begun)
    how = {"max_iter": STEPS, "tolerance_grad": TOLERANCE, "tolerance_change": 0, "history_size": HISTORY}
    optimizer = torch.optim.LBFGS([weight, bias], line_search_fn="strong_wolfe", **how)  # type: ignore[arg-type]

    def objective() -> Tensor:
        optimizer.zero_grad()
        classifier = Classifier(mean, scale, weight, bias, False)
        penalty = weight_decay / 2 * weight.square().sum()
        penalty.backward()  # type: ignore[no-untyped-call]
        total = penalty.detach()
        for at in parts(len(rows), among):
            loss = cross_entropy(classifier.logits(rows[at]), labels[at], reduction="sum") / count
            loss.backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
        return total

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    objective()
    slope = max(float(tensor.grad.abs().max()) for tensor in (weight, bias) if tensor.grad is not None)
    return Classifier(mean, scale, weight.detach(), bias.detach(), slope <= 10 * TOLERANCE)


def standard(rows: Tensor, dtype: torch.dtype, among: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The mean (D,) of features (N, D) and one over their deviation (D,), 1 where they do not vary."""
    count, places = len(rows) if among is None else len(among), parts(len(rows), among)
    mean = torch.stack([rows[at].sum(dim=0, dtype=dtype) for at in places]).sum(dim=0) / count
    variance = torch.stack([(rows[at] - mean).square().sum(dim=0) for at in places]).sum(dim=0) / count
    deviation = variance.sqrt()
    varies = deviation > 1e-6 * mean.abs()  # less is what rounding to single precision leaves
    return mean, torch.where(varies, 1 / deviation, 1.0)


def parts(count: int, among: Tensor | None) -> Sequence[slice | Tensor]:
    """The places of so many rows, or of those `among` them (n,), some at a time."""
    if among is None:
        return [slice(start, start + ROWS) for start in range(0, count, ROWS)]
    return torch.split(among, ROWS)
