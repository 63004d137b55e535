"""Bootstrap your own latent. Grill et al., 2020. https://arxiv.org/abs/2006.07733

Views and sizes default to the baseline that LEWEL is compared with (EMAN: Cai et al., 2021. https://arxiv.org/abs/2101.08482).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ssl_backbones.checks import check_momentum, check_positive, check_share
from ssl_backbones.losses import cosine_distance
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import feature_map, normalisation, pooled, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.ema import EMA, TargetBN
from ssl_backbones.models.heads import MLPHead
from ssl_backbones.registry.papers import Paper
from ssl_backbones.schedules import ema_momentum
from ssl_backbones.typed.values import check_choices
from ssl_backbones.views import LEWEL_B_VIEWS, MultiView, Policy

PredictorInit = Literal["kaiming", "normal"]


@dataclass(frozen=True)
class BYOLConfig(MethodConfig):
    """BYOL's choices."""

    name: ClassVar[str] = "byol"
    paper: ClassVar[Paper] = Paper(
        "BYOL",
        "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning",
        "Grill et al.",
        2020,
        "https://arxiv.org/abs/2006.07733",
    )
    hidden_dim: int = 4096
    """The width inside every head."""
    projection_dim: int = 256
    """The width of the embeddings that are compared."""
    num_layers: int = 2
    """Linear layers of the projection head; the predictor always has two."""
    predictor_init: PredictorInit = "normal"
    """Kaiming-normal over outputs as the other heads, or N(0, 0.01) as in EMAN's baseline."""
    target_momentum: float = 0.98
    """EMA momentum of the target at the start."""
    target_momentum_end: float = 1.0
    """EMA momentum at the end of the run, reached along half a cosine; constant if equal to the start."""
    target_bn: TargetBN = "ema"
    """Batch statistics of the target: averaged ones, those of the whole batch, or those of its process's part."""
    views: tuple[Policy, Policy] = LEWEL_B_VIEWS

    def __post_init__(self) -> None:
        check_positive(hidden_dim=self.hidden_dim, projection_dim=self.projection_dim, num_layers=self.num_layers)
        check_momentum("target_momentum", self.target_momentum)
        check_share("target_momentum_end", self.target_momentum_end)
        check_choices(self)

    def build(self, backbone: nn.Module) -> BYOL:
        return BYOL(backbone, self)


class BYOL(Method):
    """Each view's embedding predicts the other's as a slow copy of the network sees it."""

    def __init__(self, backbone: nn.Module, config: BYOLConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or BYOLConfig()
        self.backbone = backbone
        self.projector = MLPHead(width_of(backbone), config.hidden_dim, config.projection_dim, config.num_layers)
        self.predictor = MLPHead(config.projection_dim, config.hidden_dim, config.projection_dim)
        if config.predictor_init == "normal":
            for layer in self.predictor.layers:
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=0.01)
        if config.target_bn == "sync":
            synchronise_batch_norm(self)
        self.target = EMA(config.target_bn == "ema", backbone=self.backbone, projector=self.projector)

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.views, size, **normalisation(self.backbone))

    def forward(self, batch: list[Tensor]) -> dict[str, Tensor | float]:
        view1, view2 = batch
        with torch.no_grad():
            target1, target2 = embed(self.target, view1), embed(self.target, view2)
        z1, z2 = embed(self, view1), embed(self, view2)
        loss = cosine_distance(self.predictor(z1), target2) + cosine_distance(self.predictor(z2), target1)
        return {"loss": loss}

    def on_step_end(self, progress: float) -> dict[str, float]:
        momentum = ema_momentum(progress, self.config.target_momentum, self.config.target_momentum_end)
        self.target.update(momentum, backbone=self.backbone, projector=self.projector)
        return {"target_momentum": momentum}


def embed(network: BYOL | EMA, view: Tensor) -> Tensor:
    """The projection (B, D) of a view (B, 3, H, W) by the online network or the target."""
    projection: Tensor = network.projector(pooled(feature_map(network.backbone, view)))
    return projection
