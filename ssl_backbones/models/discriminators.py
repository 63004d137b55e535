"""Networks that tell what belongs together, or what is real, and are thrown away after training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from ssl_backbones.distributed import gather_with_gradient, rank


class LocalDiscriminator(nn.Module):
    """Tell if a feature vector and a place of a feature map are of one image. Hjelm et al., 2019, section 3.2.

    Three 1x1 convolutions over the map with the vector joined on everywhere.
    """

    def __init__(self, map_dim: int, feature_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.dims = [map_dim, feature_dim]
        self.first = nn.Conv2d(map_dim + feature_dim, hidden_dim, 1)
        self.rest = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden_dim, hidden_dim, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden_dim, 1, 1),
        )

    def forward(self, maps: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, 1, h, w) of maps (B, C, h, w) with their own features (B, D), and with those of the next row.

        The last row of a process is followed by the first of the next process, and the last of all by the first.
        """
        # The first convolution in two halves: the vector is the same everywhere, and each map is met twice.
        of_maps, of_features = torch.split(self.first.weight, self.dims, dim=1)
        local = conv2d(maps, of_maps, self.first.bias)
        everyone, first = gather_with_gradient(features), rank() * len(features)
        others = everyone.roll(-1, 0)[first : first + len(features)]
        own, other = (linear(rows, of_features.flatten(1))[:, :, None, None] for rows in (features, others))
        return self.rest(local + own), self.rest(local + other)


def prior_discriminator(feature_dim: int) -> nn.Sequential:
    """Rows (B, D) to logits (B, 1): whether they were drawn from the prior. Layers of 512 and 128 units between."""
    return nn.Sequential(
        nn.Linear(feature_dim, 512),
        nn.ReLU(inplace=True),
        nn.Linear(512, 128),
        nn.ReLU(inplace=True),
        nn.Linear(128, 1),
    )
