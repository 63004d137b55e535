"""LEWEL's aligned branch over SwAV: each map's embedding predicts what the other views' under that map are assigned to.

Huang et al., Learning Where to Learn in Cross-View Self-Supervised Learning, CVPR 2022. https://arxiv.org/abs/2203.14898
Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, 2020.
https://arxiv.org/abs/2006.09882
The LEWEL paper says that its branch suits such methods in general, and shows it over MoCo v2 and BYOL; this one is
this project's reading. Head, maps, grouping and the mixture of the losses (eq. 1 to 3) are LEWEL's, the head in place
of SwAV's; both losses are SwAV's, each with prototypes of its own. Aligned embeddings of all images and maps share one
assignment for each view; they are many, so there is no queue beside them, and none beside the global ones. Views of one
size pass network and head together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_backbones.checks import check, check_at_least, check_positive
from ssl_backbones.distributed import gather
from ssl_backbones.losses import sinkhorn, swapped_prediction
from ssl_backbones.losses.precision import widened
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.aligned_head import LEWEL, AlignedEmbeddings, AlignedHead, AlignedHeadConfig, mixture
from ssl_backbones.models.backbone import feature_map, joined_by_size, normalisation, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.prototypes import Prototypes
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import SWAV_CROP, SWAV_VIEWS, MultiView, Policy


@dataclass(frozen=True)
class LewelSwAVConfig(AlignedHeadConfig, MethodConfig):
    """The choices of LEWEL over SwAV: those of its head, of SwAV, and of the aligned loss."""

    name: ClassVar[str] = "lewel_swav"
    paper: ClassVar[Paper] = Paper("LEWEL over SwAV", *LEWEL)
    prototypes: int = 3000
    """K: directions that global embeddings are assigned to."""
    aligned_prototypes: int = 3000
    """Directions that aligned embeddings are assigned to."""
    temperature: float = 0.1
    """tau: the temperature of the predictions."""
    epsilon: float = 0.05
    """epsilon: the temperature of Sinkhorn's assignments; smaller is harder."""
    iterations: int = 3
    """Iterations of Sinkhorn's algorithm."""
    frozen_steps: int = 313
    """Optimiser steps in which the prototypes are frozen: an epoch of the paper's."""
    sync_bn: bool = True
    """Take batch statistics over all processes."""
    views: tuple[Policy, Policy] = SWAV_VIEWS
    crop: Policy = SWAV_CROP
    """The augmentation of the local crops."""
    crops: int = 6
    """Local crops (multi-crop) of each image, which predict the assignments of the two views and are not assigned."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(iterations=self.iterations, temperature=self.temperature, epsilon=self.epsilon)
        check_at_least(self, frozen_steps=0, crops=0)
        shown = len(self.policies)
        for name in ("prototypes", "aligned_prototypes"):
            count = getattr(self, name)
            check(count >= shown, name, count, f"at least the {shown} crops of an image")

    @property
    def policies(self) -> tuple[Policy, ...]:
        return (*self.views, *[self.crop] * self.crops)

    def build(self, backbone: nn.Module) -> LewelSwAV:
        return LewelSwAV(backbone, self)


class LewelSwAV(Method):
    """Every crop predicts, globally and map by map, which prototypes the two views are assigned to."""

    accumulation_is_exact = False

    def __init__(self, backbone: nn.Module, config: LewelSwAVConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LewelSwAVConfig()
        self.backbone = backbone
        self.head = AlignedHead(width_of(backbone), config)
        self.prototypes = Prototypes(config.prototypes, config.projection_dim, config.frozen_steps)
        self.aligned_prototypes = Prototypes(config.aligned_prototypes, config.aligned_dim, config.frozen_steps)
        if config.sync_bn:
            synchronise_batch_norm(self)

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.policies, size, **normalisation(self.backbone))

    def forward(self, batch: list[Tensor]) -> dict[str, Tensor | float]:
        """Score crops (B, 3, S, S) of each image, the two that are assigned first."""
        embedded = [self.embed(views) for views in joined_by_size(batch)]
        z = torch.cat([one.projection for one in embedded]).unflatten(0, (len(batch), -1))  # (V, B, c)
        y = torch.cat([one.aligned for one in embedded]).unflatten(0, (len(batch), -1))  # (V, B, n, d)
        global_loss = self.loss(z, self.prototypes)
        aligned_loss = self.loss(y.flatten(1, 2), self.aligned_prototypes)
        share, config = self.config.aligned_weight, self.config
        chance = (1 - share) * math.log(config.prototypes) + share * math.log(config.aligned_prototypes)
        return mixture(global_loss, aligned_loss, share) | {"chance": chance}

    def loss(self, embeddings: Tensor, prototypes: Prototypes) -> Tensor:
        """SwAV's loss of embeddings (V, R, D) of V views: row r of a view is assigned, and predicted by the others'."""
        scores = prototypes(normalize(widened(embeddings), dim=2))
        config, assigned = self.config, scores[: len(self.config.views)].detach()
        q = torch.stack([sinkhorn(view, config.epsilon, config.iterations, None, gather) for view in assigned])
        return swapped_prediction(scores, q, config.temperature)

    def embed(self, views: Tensor) -> AlignedEmbeddings:
        """Embed views (V * B, 3, H, W) of one size, each under its own maps."""
        embeddings: AlignedEmbeddings = self.head(feature_map(self.backbone, views))
        return embeddings

    def on_step_end(self, progress: float) -> dict[str, float]:
        self.prototypes.step()
        self.aligned_prototypes.step()
        return {}

    def alignment_maps(self, images: Tensor) -> Tensor:
        """The alignment maps (B, c, h, w) of normalised images (B, 3, H, W); each sums to one."""
        return self.embed(images).maps
