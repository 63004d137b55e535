"""PixPro: propagating pixels. Xie et al., 2021. https://arxiv.org/abs/2011.10043"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssl_backbones.checks import check_alike, check_at_least, check_momentum, check_positive, check_share
from ssl_backbones.losses import nearby, pixel_consistency, propagated
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import feature_map, normalisation, on_grid, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.ema import EMA, TargetBN
from ssl_backbones.registry.papers import Paper
from ssl_backbones.schedules import ema_momentum
from ssl_backbones.typed.values import check_choices
from ssl_backbones.views import PIXPRO_VIEWS, Located, LocatedViews, MultiView, Policy


@dataclass(frozen=True)
class PixProConfig(MethodConfig):
    """PixPro's choices."""

    name: ClassVar[str] = "pixpro"
    paper: ClassVar[Paper] = Paper(
        "PixPro",
        "Propagate Yourself: Exploring Pixel-Level Consistency for Unsupervised Visual Representation Learning",
        "Xie et al.",
        2021,
        "https://arxiv.org/abs/2011.10043",
    )
    hidden_dim: int = 4096
    """The width inside the projection head."""
    projection_dim: int = 256
    """The width of the embeddings of positions."""
    distance: float = 0.7
    """T: positions of two views are a pair if their centres lie nearer than that in diagonals of a position."""
    sharpness: float = 2.0
    """gamma: the exponent of the similarity by which positions are mixed."""
    grid: int = 0
    """Feature maps with more positions a side are pooled to that many; 0 for all that they have."""
    target_momentum: float = 0.99
    """EMA momentum of the target at the start."""
    target_momentum_end: float = 1.0
    """EMA momentum at the end of the run, reached along half a cosine; constant if equal to the start."""
    target_bn: TargetBN = "sync"
    """Batch statistics of the target: averaged ones, those of the whole batch, or those of its process's part."""
    views: tuple[Policy, Policy] = PIXPRO_VIEWS

    def __post_init__(self) -> None:
        check_positive(hidden_dim=self.hidden_dim, projection_dim=self.projection_dim, distance=self.distance)
        check_at_least(self, sharpness=1, grid=0)
        check_momentum("target_momentum", self.target_momentum)
        check_share("target_momentum_end", self.target_momentum_end)
        check_choices(self)
        check_alike("views", self.views)

    def build(self, backbone: nn.Module) -> PixPro:
        return PixPro(backbone, self)


class PixPro(Method):
    """A position, mixed with those of its view that are like it, predicts what a slow copy sees at the same place."""

    def __init__(self, backbone: nn.Module, config: PixProConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PixProConfig()
        self.backbone = backbone
        self.projector = pixel_head(width_of(backbone), config.hidden_dim, config.projection_dim)
        self.value = nn.Linear(config.projection_dim, config.projection_dim)
        if config.target_bn == "sync":
            synchronise_batch_norm(self)
        self.target = EMA(config.target_bn == "ema", backbone=self.backbone, projector=self.projector)

    def transform(self, size: int) -> LocatedViews:
        return LocatedViews(MultiView(self.config.views, size, **normalisation(self.backbone)))

    def forward(self, batch: Located) -> dict[str, Tensor | float]:
        """Score two views (B, 3, S, S) of each image by their places in it. Eq. 4 in both directions."""
        (view1, view2), geometry = batch
        with torch.no_grad():
            (target1, grid), (target2, _) = self.project(self.target, view1), self.project(self.target, view2)
            corners1, corners2 = geometry.corners()
            pairs = nearby(corners1, corners2, grid, self.config.distance)
            shared = pairs.flatten(1).any(1).float().mean()
        (x1, _), (x2, _) = self.project(self, view1), self.project(self, view2)
        y1, y2 = (propagated(x, self.value(x), self.config.sharpness) for x in (x1, x2))
        loss = pixel_consistency(y1, target2, pairs) + pixel_consistency(y2, target1, pairs.mT)
        return {"loss": loss, "shared": shared}

    def project(self, network: PixPro | EMA, view: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """x: the embeddings (B, P, D) of the positions of a view (B, 3, H, W), and how many those are down and across.

        By the network that learns or by its slow copy.
        """
        features = on_grid(feature_map(network.backbone, view), self.config.grid)
        count, width, high, wide = features.shape
        rows: Tensor = network.projector(features.flatten(2).mT.reshape(-1, width))
        return rows.view(count, high * wide, -1), (high, wide)

    def pixel_embeddings(self, images: Tensor) -> Tensor:
        """x: the embeddings (B, D, h, w) of the positions of normalised images (B, 3, H, W)."""
        rows, grid = self.project(self, images)
        embeddings: Tensor = rows.mT.unflatten(2, grid)
        return embeddings

    def on_step_end(self, progress: float) -> dict[str, float]:
        momentum = ema_momentum(progress, self.config.target_momentum, self.config.target_momentum_end)
        self.target.update(momentum, backbone=self.backbone, projector=self.projector)
        return {"target_momentum": momentum}


def pixel_head(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    """The projection head as 1x1 convolutions, positions (N, C) to (N, D): with biases and torch's own weights."""
    layers = nn.Linear(in_dim, hidden_dim), nn.BatchNorm1d(hidden_dim), nn.ReLU(inplace=True)
    return nn.Sequential(*layers, nn.Linear(hidden_dim, out_dim))
