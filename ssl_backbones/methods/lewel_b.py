"""LEWEL_B: BYOL, with positives aligned by maps that the projection head predicts.

Huang et al., Learning Where to Learn in Cross-View Self-Supervised Learning, CVPR 2022. https://arxiv.org/abs/2203.14898
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssl_backbones.checks import check_momentum, check_share
from ssl_backbones.losses import cosine_distance
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.aligned_head import LEWEL, AlignedEmbeddings, AlignedHead, AlignedHeadConfig, mixture
from ssl_backbones.models.backbone import feature_map, normalisation, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.ema import EMA, TargetBN
from ssl_backbones.models.heads import MLPHead
from ssl_backbones.registry.papers import Paper
from ssl_backbones.schedules import ema_momentum
from ssl_backbones.views import LEWEL_B_VIEWS, MultiView, Policy


@dataclass(frozen=True)
class LewelBConfig(AlignedHeadConfig, MethodConfig):
    """LEWEL_B's choices: those of its head, and these."""

    name: ClassVar[str] = "lewel_b"
    paper: ClassVar[Paper] = Paper("LEWEL_B", *LEWEL)
    target_momentum: float = 0.98
    """EMA momentum of the target at the start."""
    target_momentum_end: float = 1.0
    """EMA momentum at the end of the run, reached along half a cosine; constant if equal to the start."""
    target_bn: TargetBN = "ema"
    """Batch statistics of the target: averaged ones, those of the whole batch, or those of its process's part."""
    views: tuple[Policy, Policy] = LEWEL_B_VIEWS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_momentum("target_momentum", self.target_momentum)
        check_share("target_momentum_end", self.target_momentum_end)

    def build(self, backbone: nn.Module) -> LewelB:
        return LewelB(backbone, self)


class LewelB(Method):
    """Each view's global and aligned embeddings predict the other's as a slow copy of the network sees them."""

    def __init__(self, backbone: nn.Module, config: LewelBConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LewelBConfig()
        self.backbone = backbone
        self.head = AlignedHead(width_of(backbone), config)
        self.predictor = MLPHead(config.projection_dim, config.hidden_dim, config.projection_dim)  # q
        self.aligned_predictor = MLPHead(config.aligned_dim, config.hidden_dim, config.aligned_dim)  # q_s
        if config.target_bn == "sync":
            synchronise_batch_norm(self)
        self.target = EMA(config.target_bn == "ema", backbone=self.backbone, head=self.head)

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.views, size, **normalisation(self.backbone))

    def forward(self, batch: list[Tensor]) -> dict[str, Tensor | float]:
        view1, view2 = batch
        online1, online2 = embed(self, view1), embed(self, view2)
        with torch.no_grad():
            target1, target2 = embed(self.target, view1), embed(self.target, view2)
        losses12, losses21 = self.losses(online1, target2), self.losses(online2, target1)
        global_loss, aligned_loss = losses12[0] + losses21[0], losses12[1] + losses21[1]
        return mixture(global_loss, aligned_loss, self.config.aligned_weight)  # eq. 3

    def losses(self, online: AlignedEmbeddings, target: AlignedEmbeddings) -> tuple[Tensor, Tensor]:
        """The global loss of projections (B, c), and the aligned one of (B, n, d), map k against map k. Eq. 5."""
        return (
            cosine_distance(self.predictor(online.projection), target.projection),
            cosine_distance(self.aligned_predictor(online.aligned), target.aligned),
        )

    def on_step_end(self, progress: float) -> dict[str, float]:
        momentum = ema_momentum(progress, self.config.target_momentum, self.config.target_momentum_end)
        self.target.update(momentum, backbone=self.backbone, head=self.head)
        return {"target_momentum": momentum}

    def alignment_maps(self, images: Tensor) -> Tensor:
        """The alignment maps (B, c, h, w) of normalised images (B, 3, H, W); each sums to one."""
        return embed(self, images).maps


def embed(network: LewelB | EMA, view: Tensor) -> AlignedEmbeddings:
    """Embed a view (B, 3, H, W) by the online network or the target, under its own maps."""
    aligned: AlignedEmbeddings = network.head(feature_map(network.backbone, view))
    return aligned
