"""LEWEL's aligned branch over a joint-embedding loss of one's choice, without a target network.

Huang et al., Learning Where to Learn in Cross-View Self-Supervised Learning, CVPR 2022. https://arxiv.org/abs/2203.14898
The paper says that its branch suits such methods in general, and shows it over MoCo v2 and BYOL. Its head, maps,
grouping and the mixture of a global and an aligned loss (eq. 1 to 3) are taken as they are. This project's reading is
the rest: both losses are of one kind, each with a predictor of its own where the kind asks for one; a view passes the
network alone, as in LEWEL_B; the head is LEWEL_B's in form and size, in place of the method's own projector.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.aligned_head import LEWEL, AlignedEmbeddings, AlignedHead, AlignedHeadConfig, mixture
from ssl_backbones.models.backbone import feature_map, normalisation, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.objective import NTXentObjective, Objective
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import MOCO_V2_VIEWS, MultiView, Policy


@dataclass(frozen=True)
class AlignedConfig(AlignedHeadConfig, MethodConfig):
    """The choices of the aligned branch: those of its head, the loss below it, and these."""

    name: ClassVar[str] = "aligned"
    paper: ClassVar[Paper] = Paper("LEWEL's aligned branch", *LEWEL)
    objective: Objective = field(default_factory=NTXentObjective)
    """The loss between the embeddings of two views: NTXentObjective(), CosineObjective(), or another."""
    sync_bn: bool = True
    """Take batch statistics over all processes."""
    views: tuple[Policy, Policy] = MOCO_V2_VIEWS

    def build(self, backbone: nn.Module) -> Aligned:
        return Aligned(backbone, self)


class Aligned(Method):
    """Match the global embeddings of two views, and their aligned embeddings map by map."""

    def __init__(self, backbone: nn.Module, config: AlignedConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AlignedConfig()
        self.backbone = backbone
        self.head = AlignedHead(width_of(backbone), config)
        self.predictor = config.objective.predictor(config.projection_dim)
        self.aligned_predictor = config.objective.predictor(config.aligned_dim)
        if config.sync_bn:
            synchronise_batch_norm(self)

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.views, size, **normalisation(self.backbone))

    @property
    def accumulation_is_exact(self) -> bool:
        return self.config.objective.accumulation_is_exact

    def forward(self, batch: list[Tensor]) -> dict[str, Tensor | float]:
        first, second = (self.embed(view) for view in batch)
        objective, share = self.config.objective, self.config.aligned_weight
        global_loss = objective.loss(first.projection[:, None], second.projection[:, None], self.predictor)
        aligned_loss = objective.loss(first.aligned, second.aligned, self.aligned_predictor)
        scalars = mixture(global_loss, aligned_loss, share)
        chances = [objective.chance(len(batch[0]), maps) for maps in (1, self.config.num_maps)]
        if chances[0] is not None and chances[1] is not None:
            scalars["chance"] = (1 - share) * chances[0] + share * chances[1]
        return scalars

    def embed(self, view: Tensor) -> AlignedEmbeddings:
        """Embed a view (B, 3, H, W) under its own maps."""
        embeddings: AlignedEmbeddings = self.head(feature_map(self.backbone, view))
        return embeddings

    def alignment_maps(self, images: Tensor) -> Tensor:
        """The alignment maps (B, c, h, w) of normalised images (B, 3, H, W); each sums to one."""
        return self.embed(images).maps
