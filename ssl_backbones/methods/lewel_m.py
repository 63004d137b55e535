"""LEWEL_M: MoCo v2, with positives aligned by maps that the projection head predicts.

Huang et al., Learning Where to Learn in Cross-View Self-Supervised Learning, CVPR 2022. https://arxiv.org/abs/2203.14898
No code of it is public. The head and the global loss are known; where the paper leaves the aligned loss open, the
default is the reading that fits its text and its step times, and the others are choices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ssl_backbones.checks import check_positive, check_share
from ssl_backbones.data import Images
from ssl_backbones.data.batches import BatchDataset, Batches
from ssl_backbones.data.exchanged import ExchangedBatches, views_and_places
from ssl_backbones.distributed import gather, own_rows, rank
from ssl_backbones.losses import AlignedNegatives, aligned_info_nce, aligned_negative_count, info_nce
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.mining import PairedBatches, numbers_of_queries
from ssl_backbones.models.aligned_head import LEWEL, AlignedEmbeddings, AlignedHead, AlignedHeadConfig, mixture
from ssl_backbones.models.backbone import feature_map, normalisation, width_of
from ssl_backbones.models.ema import EMA
from ssl_backbones.models.key_encoder import KeyEncoderConfig, encode_keys, guard_batch_norm
from ssl_backbones.models.queue import Mask, Queue, check_queue
from ssl_backbones.registry.papers import Paper
from ssl_backbones.schedules import ema_momentum
from ssl_backbones.views import MOCO_V2_VIEWS, MultiView, Policy


@dataclass(frozen=True)
class LewelMConfig(AlignedHeadConfig, KeyEncoderConfig, MethodConfig):
    """LEWEL_M's choices: those of its head, of MoCo v2, and of the aligned loss."""

    name: ClassVar[str] = "lewel_m"
    paper: ClassVar[Paper] = Paper("LEWEL_M", *LEWEL)
    hidden_dim: int = 2048
    projection_dim: int = 128
    aligned_dim: int = 128
    aligned_negatives: AlignedNegatives = "other_images_all_maps"
    """The other aligned keys that are negatives of a query."""
    gather_aligned_keys: bool = True
    """Take aligned negatives from all processes, so that their number does not depend on how many there are."""
    temperature: float = 0.2
    """Divides the cosines."""
    queue_size: int = 65536
    """K: keys of past batches, the negatives."""
    momentum_end: float | None = None
    """EMA momentum at the end of the run, reached along half a cosine. Default: constant."""
    mask: Mask = "none"
    """Keys in the queue that are no negatives of a query: none, or those of its own image."""
    symmetric: bool = False
    """Take each view as query and as key in turn, and add the losses."""
    views: tuple[Policy, Policy] = MOCO_V2_VIEWS

    def __post_init__(self) -> None:
        AlignedHeadConfig.__post_init__(self)
        KeyEncoderConfig.__post_init__(self)
        check_positive(temperature=self.temperature, queue_size=self.queue_size)
        check_share("momentum_end", self.momentum if self.momentum_end is None else self.momentum_end)

    def build(self, backbone: nn.Module) -> LewelM:
        return LewelM(backbone, self)


class LewelM(Method):
    """A view's global and aligned embeddings find the other view's among those of other images."""

    def __init__(self, backbone: nn.Module, config: LewelMConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LewelMConfig()
        self.backbone = backbone
        self.head = AlignedHead(width_of(backbone), config)
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

    @property
    def accumulation_is_exact(self) -> bool:
        return self.config.aligned_weight == 0

    def forward(self, batch: Any) -> dict[str, Tensor | float]:
        """Score two views (B, 3, S, S) of each image; with its row in the data (B, 1) where the queue is masked."""
        shown, numbers = batch if self.config.mask == "own" else (batch, None)
        (view1, view2), places = views_and_places(shown)
        if numbers is not None:
            numbers = numbers_of_queries(numbers, places)
        both = [(view1, view2, places, numbers), (view2, view1, places, numbers)]
        directions = both if self.config.symmetric else both[:1]
        scored = [self.losses(*views) for views in directions]
        global_loss = torch.stack([losses[0] for losses in scored]).sum()
        aligned_loss = torch.stack([losses[1] for losses in scored]).sum()
        chance = {} if numbers is not None else {"chance": sum(losses[2] for losses in scored)}
        return {**mixture(global_loss, aligned_loss, self.config.aligned_weight), **chance}  # eq. 3

    def losses(
        self, query_view: Tensor, key_view: Tensor, places: Tensor | None = None, numbers: Tensor | None = None
    ) -> tuple[Tensor, Tensor, float]:
        """The global InfoNCE, the aligned one, and their mixture at chance, of views (B, 3, H, W). Eq. 4."""
        config = self.config
        queries = embed(self, query_view)
        keys, aligned_keys = encode_keys(self.keys, key_view, config.key_bn == "shuffle", places)
        excluded = None if numbers is None else self.queue.of(numbers)
        self.queue.offer(keys, None if numbers is None else gather(numbers)[:, 0])
        images, first = len(query_view), rank() * len(query_view)
        if not config.gather_aligned_keys:
            aligned_keys, first = own_rows(aligned_keys, images), 0
        negatives = aligned_negative_count(len(aligned_keys), config.num_maps, config.aligned_negatives)
        global_chance, aligned_chance = math.log(1 + len(self.queue)), math.log(1 + negatives)
        return (
            info_nce(queries.projection, own_rows(keys, images), self.queue.keys, config.temperature, excluded),
            aligned_info_nce(queries.aligned, aligned_keys, config.temperature, first, config.aligned_negatives),
            (1 - config.aligned_weight) * global_chance + config.aligned_weight * aligned_chance,
        )

    def keys(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """The global and aligned keys, (B, c) and (B, n, d), of a view (B, 3, H, W)."""
        aligned = embed(self.key_encoder, view)
        return aligned.projection, aligned.aligned

    def on_step_end(self, progress: float) -> dict[str, float]:
        self.queue.commit()
        start, end = self.config.momentum, self.config.momentum_end
        momentum = ema_momentum(progress, start, start if end is None else end)
        self.key_encoder.update(momentum, backbone=self.backbone, head=self.head)
        return {"key_momentum": momentum}

    def alignment_maps(self, images: Tensor) -> Tensor:
        """The alignment maps (B, c, h, w) of normalised images (B, 3, H, W); each sums to one."""
        return embed(self, images).maps


def embed(network: LewelM | EMA, view: Tensor) -> AlignedEmbeddings:
    """Embed a view (B, 3, H, W) by the query or the key encoder, under its own maps."""
    aligned: AlignedEmbeddings = network.head(feature_map(network.backbone, view))
    return aligned
