"""Clusters of all images, their prototypes, and how concentrated they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_backbones.k_means import centred, k_means
from ssl_backbones.losses.precision import widened
from ssl_backbones.models.image_rows import rows_from_state
from ssl_backbones.shares import all_shares

SMOOTHING = 10
"""alpha: keeps small clusters from seeming concentrated."""
CLAMPED = 0.1, 0.9
"""Quantiles of the concentrations to which smaller and larger ones are moved."""
LEAST = 1e-2
"""The least concentration as a share of the mean: that of clusters of images that are all alike would be 0."""


class Clustering(nn.Module):
    """Clusters of embeddings (N, D) by k-means, the same in every process. Li et al., 2021, section 3.

    State is what each image and each cluster has: of ImageNet's images 10 MB, and 51 MB of 100,000 prototypes.
    """

    labels: Tensor
    """(N,): the cluster of each image, without rows until `of_images` or a state that is loaded."""
    prototypes: Tensor
    """(K, D): the mean of each cluster, brought to length one."""
    concentrations: Tensor
    """phi (K,): the smaller, the closer a cluster's images lie; their mean is the temperature."""

    def __init__(self, count: int, dim: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long))
        rows_from_state(self, "labels")
        self.register_buffer("prototypes", torch.zeros(count, dim))
        self.register_buffer("concentrations", torch.full((count,), temperature))

    def of_images(self, count: int) -> None:
        """Make room for the clusters of so many images, unless there is."""
        if len(self.labels) != count:
            self.labels = self.labels.new_zeros(count)

    @torch.no_grad()
    def find(self, points: Tensor, seed: int, restarts: int, iterations: int) -> None:
        """Cluster the points of all processes anew, of which this one has a share (S, D)."""
        points, count = points.to(self.prototypes), len(self.prototypes)
        generator = torch.Generator(points.device).manual_seed(seed)
        own = k_means(points, count, generator, restarts, iterations)
        self.labels.copy_(all_shares(own, len(self.labels)))
        sizes = torch.bincount(self.labels, minlength=count)
        means = centred(points, own, points.new_zeros(len(points)), count)
        distances = (points - means[own]).norm(dim=1)
        spread = centred(distances[:, None], own, distances, count)[:, 0]
        self.prototypes.copy_(normalize(means, dim=1))
        self.concentrations.copy_(concentration(widened(spread), sizes, self.temperature))


def concentration(spread: Tensor, sizes: Tensor, temperature: float) -> Tensor:
    """phi (K,) of clusters, from the mean distance (K,) of their points to their means and their sizes (K,).

    Li et al., 2021, eq. 12: sum of distances / (Z log(Z + alpha)). As in the authors' code a cluster of one point has
    the largest, all are moved between two quantiles, and scaled to a mean of the temperature.
    """
    phi = spread / (sizes + SMOOTHING).to(spread.dtype).log()
    several = sizes > 1
    phi = torch.where(several, phi, torch.where(several, phi, 0).max())
    low, high = phi.quantile(phi.new_tensor(CLAMPED))
    phi = phi.clamp(low, high)
    mean = phi.mean()
    scaled = torch.where(mean > 0, phi / mean, 1.0)
    return temperature * scaled.clamp(min=LEAST)
