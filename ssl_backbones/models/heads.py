"""Projection and prediction heads: between backbone and loss in training, thrown away after."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from ssl_backbones.models.batch_norm import SplitBatchNorm


class MLPHead(nn.Module):
    """Linear, BatchNorm, ReLU, ..., Linear, without biases, over the last axis: rows (..., C) to (..., D).

    All rows share one set of batch statistics, whatever axes come before; where the batch is normalised in groups,
    those of an image stay together. The projection and prediction heads of BYOL (Grill et al., 2020) and the
    1x1-convolution heads of LEWEL (Huang et al., 2022) are of this form.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int = 2) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"a head needs at least one layer, not num_layers={num_layers}")
        widths = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths[:-1]):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1], bias=False))
        for module in self.layers:
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, rows: Tensor) -> Tensor:
        flat = rows.flatten(0, -2)
        for layer in self.layers:
            flat = layer(flat, len(flat) // len(rows)) if isinstance(layer, SplitBatchNorm) else layer(flat)
        return flat.view(*rows.shape[:-1], -1)


def moco_head(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    """MoCo v2's head, rows (B, C) to (B, D): two linear layers with biases and no normalisation. Chen et al., 2020."""
    return nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.ReLU(inplace=True), nn.Linear(hidden_dim, out_dim))
