"""NNCLR: nearest-neighbour contrastive learning. Dwibedi et al., 2021. https://arxiv.org/abs/2104.14548"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_backbones.checks import check_positive
from ssl_backbones.data import Images, NumberedBatches
from ssl_backbones.distributed import gather, gather_with_gradient, rank
from ssl_backbones.losses import batch_info_nce
from ssl_backbones.losses.precision import in_single_precision, widened
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import feature_map, normalisation, pooled, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.heads import MLPHead
from ssl_backbones.models.queue import Queue, check_queue
from ssl_backbones.registry.papers import Paper
from ssl_backbones.typed.values import check_choices
from ssl_backbones.views import SIMCLR_VIEWS, MultiView, Policy

Axes = Literal["predictions", "both"]


@dataclass(frozen=True)
class NNCLRConfig(MethodConfig):
    """NNCLR's choices."""

    name: ClassVar[str] = "nnclr"
    paper: ClassVar[Paper] = Paper(
        "NNCLR",
        "With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual Representations",
        "Dwibedi et al.",
        2021,
        "https://arxiv.org/abs/2104.14548",
    )
    hidden_dim: int = 2048
    """The width inside the projection head."""
    projection_dim: int = 256
    """The width of the embeddings that are compared."""
    num_layers: int = 3
    """Linear layers of the projection head, each normalised; the predictor has two."""
    predictor_dim: int = 4096
    """The width inside the predictor."""
    temperature: float = 0.1
    """tau: the temperature of the softmax."""
    queue_size: int = 98304
    """Embeddings of past batches, among which the neighbours are sought."""
    exclude_self: bool = False
    """Leave embeddings of the image itself out of the search; the paper does not."""
    axes: Axes = "predictions"
    """Each neighbour finds its prediction among others; with both, each prediction finds its neighbour as well."""
    sync_bn: bool = True
    """Take batch statistics over all processes."""
    views: tuple[Policy, Policy] = SIMCLR_VIEWS

    def __post_init__(self) -> None:
        check_positive(hidden_dim=self.hidden_dim, projection_dim=self.projection_dim, num_layers=self.num_layers)
        check_positive(predictor_dim=self.predictor_dim, queue_size=self.queue_size, temperature=self.temperature)
        check_choices(self)

    def build(self, backbone: nn.Module) -> NNCLR:
        return NNCLR(backbone, self)


class NNCLR(Method):
    """The positive of a view's prediction is the queue's embedding that lies nearest to the other view's."""

    accumulation_is_exact = False

    def __init__(self, backbone: nn.Module, config: NNCLRConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NNCLRConfig()
        self.backbone = backbone
        self.projector = nn.Sequential(
            MLPHead(width_of(backbone), config.hidden_dim, config.projection_dim, config.num_layers),
            nn.BatchNorm1d(config.projection_dim),
        )
        self.predictor = MLPHead(config.projection_dim, config.predictor_dim, config.projection_dim)
        self.queue = Queue(config.queue_size, config.projection_dim, numbered=True)
        if config.sync_bn:
            synchronise_batch_norm(self)

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.views, size, **normalisation(self.backbone))

    def check_data(self, images: int, batch_size: int) -> None:
        if not self.config.exclude_self:
            check_queue(self.config.queue_size, images, batch_size, kept_out="exclude_self")

    def dataset(self, images: Images, size: int, seed: int) -> NumberedBatches:
        """Batches with the row of each image, by which the queue knows its own."""
        return NumberedBatches(images, self.transform(size), seed)

    def forward(self, batch: tuple[list[Tensor], Tensor]) -> dict[str, Tensor | float]:
        """Score two views (B, 3, S, S) of each image, and the images' rows in the data (B,)."""
        (view1, view2), rows = batch
        z1, z2 = self.embed(view1), self.embed(view2)
        p1, p2 = (gather_with_gradient(widened(self.predictor(z))) for z in (z1, z2))
        (nn1, own1), (nn2, own2) = self.nearest(z1, rows), self.nearest(z2, rows)
        self.queue.offer(gather(z1), gather(rows))
        loss = (self.loss(nn1, p2) + self.loss(nn2, p1)) / 2
        return {"loss": loss, "own_neighbours": (own1 + own2) / 2, "chance": math.log(len(p1))}

    def embed(self, view: Tensor) -> Tensor:
        """The projections (B, D) of a view (B, 3, H, W)."""
        projection: Tensor = self.projector(pooled(feature_map(self.backbone, view)))
        return projection

    @torch.no_grad()
    def nearest(self, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """NN(z, Q): the embedding in the queue nearest to each of z (B, D), and the share of those of its own image."""
        assert self.queue.numbers is not None
        similar = cosines(z.to(self.queue.keys.dtype), self.queue.keys)
        if self.config.exclude_self:
            similar = similar.masked_fill(self.queue.of(rows[:, None]), -math.inf)
        found = similar.argmax(1)
        return self.queue.keys[found], (self.queue.numbers[found] == rows).float().mean()

    def loss(self, neighbours: Tensor, predictions: Tensor) -> Tensor:
        """The loss of the neighbours (B, D) of one view and the predictions (G, D) of the other, of all processes."""
        own, first = len(neighbours), rank() * len(neighbours)
        loss = batch_info_nce(neighbours, predictions, self.config.temperature, first)
        if self.config.axes == "predictions":
            return loss
        mine = predictions[first : first + own]
        return (loss + batch_info_nce(mine, gather(neighbours), self.config.temperature, first)) / 2

    def on_step_end(self, progress: float) -> dict[str, float]:
        self.queue.commit()
        return {}


@in_single_precision
def cosines(embeddings: Tensor, keys: Tensor) -> Tensor:
    """The cosines (B, K) of embeddings (B, D) with keys (K, D), unit vectors: half precision ties near neighbours."""
    return normalize(embeddings, dim=1) @ keys.T
