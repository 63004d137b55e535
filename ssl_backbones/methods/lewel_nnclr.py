"""LEWEL's aligned branch over NNCLR: each map's embedding finds a neighbour of its own among past images.

Huang et al., Learning Where to Learn in Cross-View Self-Supervised Learning, CVPR 2022. https://arxiv.org/abs/2203.14898
Dwibedi et al., With a Little Help from My Friends, ICCV 2021. https://arxiv.org/abs/2104.14548
The LEWEL paper says that its branch suits such methods in general, and shows it over MoCo v2 and BYOL; this one is
this project's reading. Head, maps, grouping and the mixture of the losses (eq. 1 to 3) are LEWEL's, the head in place
of NNCLR's projector; both losses are NNCLR's, each with a predictor and a queue of its own. An aligned embedding's
neighbour is sought under its own map, as its positive is in LEWEL.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_backbones.checks import check_positive
from ssl_backbones.data import Images, NumberedBatches
from ssl_backbones.distributed import gather, gather_with_gradient, rank
from ssl_backbones.losses import AlignedNegatives, aligned_info_nce, aligned_negative_count
from ssl_backbones.losses.precision import in_single_precision, widened
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.aligned_head import LEWEL, AlignedEmbeddings, AlignedHead, AlignedHeadConfig, mixture
from ssl_backbones.models.backbone import feature_map, normalisation, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.heads import MLPHead
from ssl_backbones.models.queue import Queue, check_queue
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import SIMCLR_VIEWS, MultiView, Policy


@dataclass(frozen=True)
class LewelNNCLRConfig(AlignedHeadConfig, MethodConfig):
    """The choices of LEWEL over NNCLR: those of its head, of NNCLR, and of the aligned loss."""

    name: ClassVar[str] = "lewel_nnclr"
    paper: ClassVar[Paper] = Paper("LEWEL over NNCLR", *LEWEL)
    predictor_dim: int = 4096
    """The width inside the predictors."""
    temperature: float = 0.1
    """tau: the temperature of the softmax."""
    queue_size: int = 98304
    """Embeddings of past batches, among which the neighbours are sought."""
    aligned_queue_size: int = 4096
    """Images of past batches, among whose aligned embeddings the neighbours of aligned ones are sought, map by map."""
    aligned_negatives: AlignedNegatives = "other_images_all_maps"
    """The other aligned predictions that are negatives of a neighbour."""
    exclude_self: bool = False
    """Leave embeddings of the image itself out of the search; NNCLR does not."""
    sync_bn: bool = True
    """Take batch statistics over all processes."""
    views: tuple[Policy, Policy] = SIMCLR_VIEWS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(predictor_dim=self.predictor_dim, temperature=self.temperature)
        check_positive(queue_size=self.queue_size, aligned_queue_size=self.aligned_queue_size)

    def build(self, backbone: nn.Module) -> LewelNNCLR:
        return LewelNNCLR(backbone, self)


class LewelNNCLR(Method):
    """The positives of a view's predictions are the past embeddings nearest to the other view's, map by map."""

    accumulation_is_exact = False

    def __init__(self, backbone: nn.Module, config: LewelNNCLRConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LewelNNCLRConfig()
        self.backbone = backbone
        width, aligned = config.projection_dim, config.aligned_dim
        self.head = AlignedHead(width_of(backbone), config)
        self.predictor = MLPHead(width, config.predictor_dim, width)
        self.aligned_predictor = MLPHead(aligned, config.predictor_dim, aligned)
        self.queue = Queue(config.queue_size, width, numbered=True)
        self.aligned_queue = Queue(config.aligned_queue_size, config.num_maps * aligned, numbered=True)
        if config.sync_bn:
            synchronise_batch_norm(self)

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.views, size, **normalisation(self.backbone))

    def check_data(self, images: int, batch_size: int) -> None:
        if not self.config.exclude_self:
            check_queue(self.config.queue_size, images, batch_size, kept_out="exclude_self")
            check_queue(self.config.aligned_queue_size, images, batch_size, kept_out="exclude_self")

    def dataset(self, images: Images, size: int, seed: int) -> NumberedBatches:
        """Batches with the row of each image, by which the queues know its own."""
        return NumberedBatches(images, self.transform(size), seed)

    def forward(self, batch: tuple[list[Tensor], Tensor]) -> dict[str, Tensor | float]:
        """Score two views (B, 3, S, S) of each image, and the images' rows in the data (B,)."""
        views, rows = batch
        first, second = (self.embed(view) for view in views)
        z1, z2 = first.projection[:, None], second.projection[:, None]
        global_loss, own, chance = self.loss(z1, z2, rows, self.predictor, self.queue)
        aligned_loss, own_aligned, aligned_chance = self.loss(
            first.aligned, second.aligned, rows, self.aligned_predictor, self.aligned_queue
        )
        share = self.config.aligned_weight
        return mixture(global_loss, aligned_loss, share) | {
            "own_neighbours": own,
            "own_aligned_neighbours": own_aligned,
            "chance": (1 - share) * chance + share * aligned_chance,
        }

    def loss(
        self, z1: Tensor, z2: Tensor, rows: Tensor, predictor: nn.Module, queue: Queue
    ) -> tuple[Tensor, Tensor, float]:
        """NNCLR's loss of embeddings (B, n, D) of two views, its own images' share of the neighbours, and chance."""
        p1, p2 = (gather_with_gradient(widened(predictor(z))) for z in (z1, z2))
        (nn1, own1), (nn2, own2) = (self.nearest(z, rows, queue) for z in (z1, z2))
        queue.offer(gather(normalize(z1, dim=2).flatten(1)), gather(rows))
        tau, place, negatives = self.config.temperature, rank() * len(z1), self.config.aligned_negatives
        loss1 = aligned_info_nce(nn1, p2, tau, place, negatives)
        loss2 = aligned_info_nce(nn2, p1, tau, place, negatives)
        chance = math.log(1 + aligned_negative_count(len(p1), z1.shape[1], negatives))
        return (loss1 + loss2) / 2, (own1 + own2) / 2, chance

    @torch.no_grad()
    def nearest(self, z: Tensor, rows: Tensor, queue: Queue) -> tuple[Tensor, Tensor]:
        """NN(z, Q): the past embedding nearest to each of z (B, n, D) under its map, and the share of own images'."""
        assert queue.numbers is not None
        keys = normalize(queue.keys.unflatten(1, z.shape[1:]), dim=2)  # (K, n, D)
        similar = cosines(z.to(keys.dtype), keys)
        if self.config.exclude_self:
            similar = similar.masked_fill(queue.of(rows[:, None])[:, None], -math.inf)
        found = similar.argmax(2)  # (B, n)
        maps = torch.arange(z.shape[1], device=z.device)
        return keys[found, maps], (queue.numbers[found] == rows[:, None]).float().mean()

    def embed(self, view: Tensor) -> AlignedEmbeddings:
        """Embed a view (B, 3, H, W) under its own maps."""
        embeddings: AlignedEmbeddings = self.head(feature_map(self.backbone, view))
        return embeddings

    def on_step_end(self, progress: float) -> dict[str, float]:
        self.queue.commit()
        self.aligned_queue.commit()
        return {}

    def alignment_maps(self, images: Tensor) -> Tensor:
        """The alignment maps (B, c, h, w) of normalised images (B, 3, H, W); each sums to one."""
        return self.embed(images).maps


@in_single_precision
def cosines(embeddings: Tensor, keys: Tensor) -> Tensor:
    """The cosines (B, n, K) of embeddings (B, n, D) with unit keys (K, n, D) of the same map."""
    return torch.einsum("bnd,knd->bnk", normalize(embeddings, dim=2), keys)
