"""DeepCluster: clusters of the features are the labels of the next epoch. Caron et al., 2018.

https://arxiv.org/abs/1807.05520. Sizes are those of the baseline that Patch RotNet is compared with. What is clustered
are features of clean images, and images are trained on as they are; the code behind that baseline clusters augmented
images, and trains on levels that have been normalised twice and wrapped around. Neither is repeated here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_backbones.checks import check_positive
from ssl_backbones.data import Images, ImageSourceError, NumberedBatches
from ssl_backbones.distributed import gather
from ssl_backbones.k_means import ROWS, k_means, pca_whiten
from ssl_backbones.losses import accuracy, cross_entropy
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import feature_map, pooled, width_of
from ssl_backbones.models.classifier import classifier
from ssl_backbones.models.crop_flip_choices import CropFlipChoices
from ssl_backbones.models.image_rows import require_rows, rows_from_state
from ssl_backbones.registry.papers import Paper
from ssl_backbones.shares import all_shares
from ssl_backbones.typed.values import check_choices
from ssl_backbones.views import CropFlip

Weighting = Literal["inverse", "complement"]


@dataclass(frozen=True)
class DeepClusterConfig(CropFlipChoices, MethodConfig):
    """DeepCluster's choices."""

    name: ClassVar[str] = "deepcluster"
    paper: ClassVar[Paper] = Paper(
        "DeepCluster",
        "Deep Clustering for Unsupervised Learning of Visual Features",
        "Caron et al.",
        2018,
        "https://arxiv.org/abs/1807.05520",
    )
    clusters: int = 100
    """Ten times the number of classes, where there is an idea of it."""
    hidden_dim: int = 256
    """The width inside the head."""
    components: int | None = None
    """Principal components that are clustered; None for all features below 512, and half of them from there on."""
    restarts: int = 5
    """Restarts of k-means, the best of which is kept."""
    iterations: int = 30
    """Largest number of iterations of k-means."""
    weighting: Weighting = "inverse"
    """An image's weight in the loss: one over its cluster's size, or the share of images outside it (the baseline)."""

    def __post_init__(self) -> None:
        """Raise ValueError for fewer than two clusters, or another value out of range."""
        super().__post_init__()
        if self.clusters < 2:
            raise ValueError(f"clusters must be at least 2, not {self.clusters}")
        check_positive(hidden_dim=self.hidden_dim, restarts=self.restarts, iterations=self.iterations)
        check_choices(self)

    def build(self, backbone: nn.Module) -> DeepCluster:
        return DeepCluster(backbone, self)


class DeepCluster(Method):
    """Each image is told by its cluster, which is found anew before every epoch.

    Which cluster an image is in is state, a buffer with a row for each image that `dataset` was given: a run that goes
    on within an epoch goes on with its clusters.
    """

    accumulation_is_exact = False
    pseudo_labels: Tensor
    """(N,)"""
    weights: Tensor
    """(K,) of each cluster's images in the loss."""

    def __init__(self, backbone: nn.Module, config: DeepClusterConfig | None = None) -> None:
        """Raise ValueError for more components than features."""
        super().__init__()
        self.config = config = config or DeepClusterConfig()
        self.backbone = backbone
        width = width_of(backbone)
        self.components = config.components or (width if width < 512 else width // 2)
        if not 1 <= self.components <= width:
            raise ValueError(f"components={config.components} must be 1 to {width}, the backbone's number of features")
        self.head = classifier("mlp", width, config.hidden_dim, config.clusters)
        self.register_buffer("pseudo_labels", torch.zeros(0, dtype=torch.long))
        rows_from_state(self, "pseudo_labels")
        self.register_buffer("weights", torch.ones(config.clusters))

    def transform(self, size: int) -> CropFlip:
        return self.config.crop_flip(size, self.backbone)

    def dataset(self, images: Images, size: int, seed: int) -> NumberedBatches:
        """Batches with the row of each image; ImageSourceError where there are fewer images than clusters."""
        if len(images) < self.config.clusters:
            raise ImageSourceError(
                f"{len(images)} images cannot fill {self.config.clusters} clusters: "
                f"set the method's clusters to at most {len(images)}, or add images"
            )
        if len(self.pseudo_labels) != len(images):
            self.pseudo_labels = self.pseudo_labels.new_zeros(len(images))
        return NumberedBatches(images, self.transform(size), seed)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor | float]:
        """Score images (B, 3, S, S), given their rows (B,) in the data."""
        images, rows = batch
        require_rows(self.pseudo_labels)
        labels = self.pseudo_labels[rows]
        logits = self.logits(images)
        total = gather(self.weights[labels].sum()[None]).mean()  # of a process's share of the batch
        loss = cross_entropy(logits, labels, self.weights, total)
        return {"loss": loss, "accuracy": accuracy(logits, labels), "chance": math.log(self.config.clusters)}

    def logits(self, images: Tensor) -> Tensor:
        """The logits (B, clusters) of images (B, 3, S, S)."""
        logits: Tensor = self.head(pooled(feature_map(self.backbone, images)))
        return logits

    @torch.no_grad()
    def on_epoch_start(self, embed: Callable[[], Tensor]) -> None:
        """Cluster this process's share of the features (S, D) with all the others', and begin the last layer anew.

        The optimiser's averages of that layer's gradients stay.
        """
        seed = int(torch.randint(2**62, ()))
        self.last_layer.weight.normal_(std=0.01)
        self.last_layer.bias.zero_()
        self.pseudo_labels.copy_(all_shares(self.clusters(embed(), seed), len(self.pseudo_labels)))
        self.weights.copy_(cluster_weights(self.pseudo_labels, self.config.clusters, self.config.weighting))

    @property
    def last_layer(self) -> nn.Linear:
        """The one whose outputs are clusters."""
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        return last

    def clusters(self, features: Tensor, seed: int) -> Tensor:
        """The cluster (S,) of each of this process's features (S, D): of their whitened directions."""
        config, device = self.config, self.pseudo_labels.device
        points = pca_whiten(features, self.components, device)
        for part in points.split(ROWS):
            part.copy_(normalize(part, dim=1))
        generator = torch.Generator(device).manual_seed(seed)
        return k_means(points, config.clusters, generator, config.restarts, config.iterations)


def cluster_weights(labels: Tensor, clusters: int, weighting: Weighting) -> Tensor:
    """The weight of an image of each cluster, (K,), from pseudo-labels (N,)."""
    sizes = torch.bincount(labels, minlength=clusters)
    if weighting == "inverse":
        return len(labels) / (clusters * sizes.clamp(min=1))
    return (1 - sizes / len(labels)).clamp(min=1 / len(labels))  # of one cluster that holds all, not 0
