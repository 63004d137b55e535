"""Momentum contrast, v2. Chen et al., 2020. https://arxiv.org/abs/2003.04297"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ssl_backbones.checks import check_positive, check_share
from ssl_backbones.data import Images
from ssl_backbones.data.batches import BatchDataset, Batches
from ssl_backbones.data.exchanged import ExchangedBatches, views_and_places
from ssl_backbones.distributed import gather, own_rows
from ssl_backbones.losses import info_nce
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.mining import PairedBatches, numbers_of_queries
from ssl_backbones.models.backbone import feature_map, normalisation, pooled, width_of
from ssl_backbones.models.ema import EMA
from ssl_backbones.models.heads import moco_head
from ssl_backbones.models.key_encoder import KeyEncoderConfig, encode_keys, guard_batch_norm
from ssl_backbones.models.queue import Mask, Queue, check_queue
from ssl_backbones.registry.papers import Paper
from ssl_backbones.schedules import ema_momentum
from ssl_backbones.views import MOCO_V2_VIEWS, MultiView, Policy


@dataclass(frozen=True)
class MoCoV2Config(KeyEncoderConfig, MethodConfig):
    """MoCo v2's choices: those of its key encoder, and these."""

    name: ClassVar[str] = "moco_v2"
    paper: ClassVar[Paper] = Paper(
        "MoCo v2",
        "Improved Baselines with Momentum Contrastive Learning",
        "Chen et al.",
        2020,
        "https://arxiv.org/abs/2003.04297",
    )
    hidden_dim: int = 2048
    """The width inside the head."""
    projection_dim: int = 128
    """The width of the embeddings that are compared."""
    temperature: float = 0.2
    """Divides the cosines."""
    queue_size: int = 65536
    """K: keys of past batches, the negatives."""
    momentum_end: float | None = None
    """EMA momentum at the end of the run, reached along half a cosine. Default: constant."""
    mask: Mask = "none"
    """Keys in the queue that are no negatives of a query: none, or those of its own image."""
    symmetric: bool = False
    """Take each view as query and as key in turn, and add the two losses."""
    views: tuple[Policy, Policy] = MOCO_V2_VIEWS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(hidden_dim=self.hidden_dim, projection_dim=self.projection_dim)
        check_positive(temperature=self.temperature, queue_size=self.queue_size)
        check_share("momentum_end", self.momentum if self.momentum_end is None else self.momentum_end)

    def build(self, backbone: nn.Module) -> MoCoV2:
        return MoCoV2(backbone, self)


class MoCoV2(Method):
    """A view's embedding finds the other view's among those of many other images, encoded by a slow copy."""

    def __init__(self, backbone: nn.Module, config: MoCoV2Config | None = None) -> None:
        super().__init__()
        self.config = config = config or MoCoV2Config()
        self.backbone = backbone
        self.head = moco_head(width_of(backbone), config.hidden_dim, config.projection_dim)
        guard_batch_norm(self, config.key_bn, config.bn_splits)
        self.key_encoder = EMA(config.key_bn == "ema", backbone=self.backbone, head=self.head)
        self.queue = Queue(config.queue_size, config.projection_dim, numbered=config.mask == "own")

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.views, size, **normalisation(self.backbone))

    def check_data(self, images: int, batch_size: int) -> None:
        if self.config.mask == "none":
            check_queue(self.config.queue_size, images, batch_size, keys_of_an_image=2 if self.config.symmetric else 1)

    def dataset(self, images: Images, size: int, seed: int) -> BatchDataset:
        """Batches whose keys are shuffled where they are to be; each view of both kinds would have to be made twice."""
        exchanged = self.config.key_bn == "shuffle" and not self.config.symmetric
        if self.config.mask == "own":
            return PairedBatches(images, self.transform(size), seed, exchanged=exchanged)
        return (ExchangedBatches if exchanged else Batches)(images, self.transform(size), seed)

    def forward(self, batch: Any) -> dict[str, Tensor | float]:
        """Score two views (B, 3, S, S) of each image; with its row in the data (B, 1) where the queue is masked."""
        shown, numbers = batch if self.config.mask == "own" else (batch, None)
        (view1, view2), places = views_and_places(shown)
        if numbers is not None:
            numbers = numbers_of_queries(numbers, places)
        loss = self.loss(view1, view2, places, numbers)
        if self.config.symmetric:
            loss = loss + self.loss(view2, view1, numbers=numbers)
        directions = 2 if self.config.symmetric else 1
        chance = {} if numbers is not None else {"chance": directions * math.log(1 + len(self.queue))}
        return {"loss": loss, **chance}

    def loss(
        self, query_view: Tensor, key_view: Tensor, places: Tensor | None = None, numbers: Tensor | None = None
    ) -> Tensor:
        """InfoNCE of one view's embeddings against the other's and the queue as the step began.

        `numbers` (B, 1) are the images of the queries, whose keys in the queue are no negatives.
        """
        shuffle = self.config.key_bn == "shuffle"
        (keys,) = encode_keys(lambda view: (embed(self.key_encoder, view),), key_view, shuffle, places)
        queries = embed(self, query_view)
        excluded = None if numbers is None else self.queue.of(numbers)
        self.queue.offer(keys, None if numbers is None else gather(numbers)[:, 0])
        return info_nce(queries, own_rows(keys, len(queries)), self.queue.keys, self.config.temperature, excluded)

    def on_step_end(self, progress: float) -> dict[str, float]:
        self.queue.commit()
        start, end = self.config.momentum, self.config.momentum_end
        momentum = ema_momentum(progress, start, start if end is None else end)
        self.key_encoder.update(momentum, backbone=self.backbone, head=self.head)
        return {"key_momentum": momentum}


def embed(network: MoCoV2 | EMA, view: Tensor) -> Tensor:
    """The embedding (B, D) of a view (B, 3, H, W) by the query or the key encoder."""
    projection: Tensor = network.head(pooled(feature_map(network.backbone, view)))
    return projection
