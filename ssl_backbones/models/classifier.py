"""Classifiers on the features of a backbone in training."""

from __future__ import annotations

from typing import Literal

from torch import nn

Classifier = Literal["linear", "mlp"]
"""One linear layer; or a hidden one before it, with BatchNorm and a leaky ReLU."""


def classifier(kind: Classifier, in_dim: int, hidden_dim: int, classes: int) -> nn.Sequential:
    """Rows (B, C) to logits (B, classes); the last layer comes last. Weights are drawn as torch draws them."""
    if kind == "linear":
        return nn.Sequential(nn.Linear(in_dim, classes))
    hidden = nn.Linear(in_dim, hidden_dim), nn.BatchNorm1d(hidden_dim), nn.LeakyReLU()
    return nn.Sequential(*hidden, nn.Linear(hidden_dim, classes))
