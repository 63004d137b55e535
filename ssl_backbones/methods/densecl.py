"""DenseCL: dense contrastive learning. Wang et al., 2021. https://arxiv.org/abs/2011.09157"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ssl_backbones.checks import check_at_least, check_positive, check_share
from ssl_backbones.data import Images
from ssl_backbones.data.batches import BatchDataset, Batches
from ssl_backbones.data.exchanged import ExchangedBatches, views_and_places
from ssl_backbones.distributed import own_rows
from ssl_backbones.losses import correspondence, dense_info_nce, info_nce
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import feature_map, normalisation, on_grid, pooled, width_of
from ssl_backbones.models.ema import EMA
from ssl_backbones.models.heads import moco_head
from ssl_backbones.models.key_encoder import KeyEncoderConfig, encode_keys, guard_batch_norm
from ssl_backbones.models.queue import Queue, check_queue
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import MOCO_V2_VIEWS, MultiView, Policy


@dataclass(frozen=True)
class DenseCLConfig(KeyEncoderConfig, MethodConfig):
    """DenseCL's choices; all but the last three are MoCo v2's."""

    name: ClassVar[str] = "densecl"
    paper: ClassVar[Paper] = Paper(
        "DenseCL",
        "Dense Contrastive Learning for Self-Supervised Visual Pre-Training",
        "Wang et al.",
        2021,
        "https://arxiv.org/abs/2011.09157",
    )
    hidden_dim: int = 2048
    """The width inside the heads."""
    projection_dim: int = 128
    """The width of the embeddings that are compared."""
    temperature: float = 0.2
    """tau: the temperature of the softmax."""
    queue_size: int = 65536
    """K: keys of past batches in each of the two queues, the negatives."""
    views: tuple[Policy, Policy] = MOCO_V2_VIEWS
    dense_weight: float = 0.5
    """lambda: the weight of the dense loss; the pooled one has the rest."""
    dense_after: float = 0.0
    """The share of the run before which the dense loss has no weight; the step that reaches it still has none."""
    grid: int = 0
    """S: feature maps with more positions are pooled to S x S for the dense loss; 0 for all that they have."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(hidden_dim=self.hidden_dim, projection_dim=self.projection_dim)
        check_positive(temperature=self.temperature, queue_size=self.queue_size)
        check_share("dense_weight", self.dense_weight)
        check_share("dense_after", self.dense_after)
        check_at_least(self, grid=0)

    def build(self, backbone: nn.Module) -> DenseCL:
        return DenseCL(backbone, self)


class DenseCL(Method):
    """MoCo on whole views and on their positions; the key of a position is the most similar one of the other view."""

    weight: Tensor
    """lambda at this step."""

    def __init__(self, backbone: nn.Module, config: DenseCLConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DenseCLConfig()
        self.backbone = backbone
        self.head, self.dense_head = (
            moco_head(width_of(backbone), config.hidden_dim, config.projection_dim) for _ in range(2)
        )
        guard_batch_norm(self, config.key_bn, config.bn_splits)
        self.key_encoder = EMA(
            config.key_bn == "ema", backbone=self.backbone, head=self.head, dense_head=self.dense_head
        )
        self.queue = Queue(config.queue_size, config.projection_dim)
        self.dense_queue = Queue(config.queue_size, config.projection_dim)
        self.register_buffer("weight", torch.tensor(0.0 if config.dense_after else config.dense_weight))

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.views, size, **normalisation(self.backbone))

    def check_data(self, images: int, batch_size: int) -> None:
        check_queue(self.config.queue_size, images, batch_size, kept_out="")

    def dataset(self, images: Images, size: int, seed: int) -> BatchDataset:
        """Batches whose keys are shuffled where they are to be."""
        kind = ExchangedBatches if self.config.key_bn == "shuffle" else Batches
        return kind(images, self.transform(size), seed)

    def forward(self, batch: Any) -> dict[str, Tensor | float]:
        """Score two views (B, 3, S, S) of each image. Eq. 1, 2 and 3."""
        (view1, view2), places = views_and_places(batch)
        keys = encode_keys(
            lambda view: self.encode(self.key_encoder, view), view2, self.config.key_bn == "shuffle", places
        )
        q, r, f = self.encode(self, view1)
        self.queue.offer(keys[0])
        self.dense_queue.offer(keys[1].mean(1))
        k, t, g = (own_rows(part, len(q)) for part in keys)
        pooled_loss = info_nce(q, k, self.queue.keys, self.config.temperature)
        dense_loss = dense_info_nce(r, t, correspondence(f, g), self.dense_queue.keys, self.config.temperature)
        loss = (1 - self.weight) * pooled_loss + self.weight * dense_loss
        parts = {"pooled_loss": pooled_loss.detach(), "dense_loss": dense_loss.detach()}
        return {"loss": loss, "chance": math.log(1 + len(self.queue)), **parts}

    def encode(self, network: DenseCL | EMA, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The embedding (B, D), those of positions (B, P, D), and their features (B, P, C), of a view (B, 3, H, W)."""
        features = feature_map(network.backbone, view)
        coarse = on_grid(features, self.config.grid)
        positions = coarse.flatten(2).mT
        return network.head(pooled(features)), network.dense_head(positions), positions.detach()

    def on_step_end(self, progress: float) -> dict[str, float]:
        self.queue.commit()
        self.dense_queue.commit()
        self.key_encoder.update(
            self.config.momentum, backbone=self.backbone, head=self.head, dense_head=self.dense_head
        )
        weight = self.config.dense_weight if progress >= self.config.dense_after else 0.0
        self.weight.fill_(weight)
        return {"key_momentum": self.config.momentum, "dense_weight": weight}
