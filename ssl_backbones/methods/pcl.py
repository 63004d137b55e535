"""PCL: contrast with prototypes. Li et al., 2021. https://arxiv.org/abs/2005.04966

MoCo beside the clusters of its own keys, which are found anew before every epoch. The authors' code counts the
prototypes of the other images of a process's batch among the negatives, again where two images share one; here an
image has its own prototype and so many others, drawn alike in all processes. Prototypes are the means of the clusters
that k-means ends with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_backbones.checks import check, check_at_least, check_positive
from ssl_backbones.data import Images, ImageSourceError
from ssl_backbones.data.batches import BatchDataset
from ssl_backbones.data.exchanged import views_and_places
from ssl_backbones.distributed import own_rows, same_permutation
from ssl_backbones.losses import info_nce, prototype_contrast
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.mining import PairedBatches, numbers_of_queries
from ssl_backbones.models.backbone import feature_map, normalisation, pooled, width_of
from ssl_backbones.models.clustering import Clustering
from ssl_backbones.models.ema import EMA
from ssl_backbones.models.heads import moco_head
from ssl_backbones.models.image_rows import require_rows
from ssl_backbones.models.key_encoder import KeyEncoderConfig, encode_keys, guard_batch_norm
from ssl_backbones.models.queue import Queue, check_queue
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import MOCO_V2_VIEWS, MultiView, Policy


@dataclass(frozen=True)
class PCLConfig(KeyEncoderConfig, MethodConfig):
    """PCL's choices: those of its key encoder, and these."""

    name: ClassVar[str] = "pcl"
    paper: ClassVar[Paper] = Paper(
        "PCL",
        "Prototypical Contrastive Learning of Unsupervised Representations",
        "Li et al.",
        2021,
        "https://arxiv.org/abs/2005.04966",
    )
    hidden_dim: int = 2048
    """The width inside the head; 0 for a head of one linear layer, as in the first version."""
    projection_dim: int = 128
    """The width of the embeddings that are compared."""
    temperature: float = 0.2
    """tau: divides the cosines; also the mean concentration of prototypes."""
    queue_size: int = 16384
    """Keys of past batches, the negatives of InfoNCE."""
    views: tuple[Policy, Policy] = MOCO_V2_VIEWS
    granularities: tuple[int, ...] = (25000, 50000, 100000)
    """k_1, ..., k_M: the clusters of each of the M clusterings, and so their prototypes."""
    negatives: int = 16384
    """r: other prototypes of a clustering that an image is contrasted with, drawn anew in each step; 0 for all."""
    instance_epochs: int = 20
    """Epochs of InfoNCE alone, before there are prototypes."""
    restarts: int = 5
    """Restarts of k-means, the best of which is kept."""
    iterations: int = 20
    """Largest number of iterations of k-means."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(projection_dim=self.projection_dim, queue_size=self.queue_size, temperature=self.temperature)
        check_positive(restarts=self.restarts, iterations=self.iterations)
        check_at_least(self, hidden_dim=0, negatives=0, instance_epochs=0)
        fewest = min(self.granularities, default=0)
        check(fewest >= 2, "granularities", self.granularities, "one number of clusters or more, each at least 2")
        check(
            self.negatives < fewest, "negatives", self.negatives, f"below {fewest}, the fewest clusters, or 0 for all"
        )

    def build(self, backbone: nn.Module) -> PCL:
        return PCL(backbone, self)


class PCL(Method):
    """A view's embedding finds the other view's key, and the prototypes of the clusters that its image is in.

    Which clusters an image is in is state, as are the prototypes: buffers with rows for each image that `dataset` was
    given, and for each cluster.
    """

    epochs: Tensor
    """Epochs begun."""
    weight: Tensor
    """1 where there are prototypes, else 0."""

    def __init__(self, backbone: nn.Module, config: PCLConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PCLConfig()
        self.backbone = backbone
        width, dim = width_of(backbone), config.projection_dim
        self.head = moco_head(width, config.hidden_dim, dim) if config.hidden_dim else nn.Linear(width, dim)
        guard_batch_norm(self, config.key_bn, config.bn_splits)
        self.key_encoder = EMA(config.key_bn == "ema", backbone=self.backbone, head=self.head)
        self.queue = Queue(config.queue_size, dim)
        self.clusterings = nn.ModuleList(Clustering(count, dim, config.temperature) for count in config.granularities)
        self.register_buffer("epochs", torch.zeros((), dtype=torch.long))
        self.register_buffer("weight", torch.zeros(()))

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.views, size, **normalisation(self.backbone))

    def check_data(self, images: int, batch_size: int) -> None:
        check_queue(self.config.queue_size, images, batch_size, kept_out="")

    def dataset(self, images: Images, size: int, seed: int) -> BatchDataset:
        """Batches with the row of each image, whose keys are shuffled where they are to be.

        ImageSourceError where there are fewer images than clusters.
        """
        most = max(self.config.granularities)
        if len(images) < most:
            raise ImageSourceError(
                f"{len(images)} images cannot fill {most} clusters: "
                f"set the method's granularities to at most {len(images)}, or add images"
            )
        for clustering in self.clusterings:
            clustering.of_images(len(images))  # type: ignore[operator]
        return PairedBatches(images, self.transform(size), seed, exchanged=self.config.key_bn == "shuffle")

    @property
    def embedder(self) -> nn.Module:
        return nn.Sequential(self.key_encoder.backbone, self.key_encoder.head)

    def forward(self, batch: Any) -> dict[str, Tensor | float]:
        """Score two views (B, 3, S, S) of each image, and its row in the data (B, 1)."""
        shown, numbers = batch
        (view1, view2), places = views_and_places(shown)
        rows = numbers_of_queries(numbers, places)[:, 0]
        shuffle = self.config.key_bn == "shuffle"
        (keys,) = encode_keys(lambda view: (embed(self.key_encoder, view),), view2, shuffle, places)
        v = embed(self, view1)
        self.queue.offer(keys)
        instance_loss = info_nce(v, own_rows(keys, len(v)), self.queue.keys, self.config.temperature)
        losses = [self.contrast(v, rows, clustering) for clustering in self.clusterings]  # type: ignore[arg-type]
        prototype_loss = torch.stack(losses).mean()
        others = [self.config.negatives or count - 1 for count in self.config.granularities]
        expected = sum(math.log(1 + count) for count in others) / len(others)
        return {
            "loss": instance_loss + self.weight * prototype_loss,
            "chance": math.log(1 + len(self.queue)) + self.weight * expected,
            "instance_loss": instance_loss.detach(),
            "prototype_loss": prototype_loss.detach(),
        }

    def contrast(self, v: Tensor, rows: Tensor, clustering: Clustering) -> Tensor:
        """The loss of embeddings (B, D) of the images at these rows (B,) against the prototypes of a clustering."""
        count, r = len(clustering.prototypes), self.config.negatives
        drawn = same_permutation(count, v.device)[: 1 + r] if r else torch.arange(count, device=v.device)
        require_rows(clustering.labels)
        own = clustering.labels[rows]
        return prototype_contrast(v, clustering.prototypes, clustering.concentrations, own, drawn)

    def on_epoch_start(self, embed: Callable[[], Tensor]) -> None:
        """Cluster the key encoder's embeddings (S, D) with those of all processes, once there are to be prototypes.

        A run that took over prototypes has them from its first epoch: clusters of its own images.
        """
        self.epochs.add_(1)
        if self.weight > 0 or self.epochs > self.config.instance_epochs:
            seeds = torch.randint(2**62, (len(self.clusterings),)).tolist()
            points = normalize(embed(), dim=1)
            for seed, clustering in zip(seeds, self.clusterings, strict=True):
                clustering.find(points, seed, self.config.restarts, self.config.iterations)  # type: ignore[operator]
            self.weight.fill_(1)

    def on_step_end(self, progress: float) -> dict[str, float]:
        self.queue.commit()
        self.key_encoder.update(self.config.momentum, backbone=self.backbone, head=self.head)
        return {"key_momentum": self.config.momentum}


def embed(network: PCL | EMA, view: Tensor) -> Tensor:
    """The embedding (B, D) of a view (B, 3, H, W) by the query or the key encoder."""
    projection: Tensor = network.head(pooled(feature_map(network.backbone, view)))
    return projection
