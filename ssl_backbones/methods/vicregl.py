"""VICRegL: VICReg of whole views and of matched positions. Bardes et al., 2022. https://arxiv.org/abs/2210.01571"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssl_backbones.checks import check_alike, check_at_least, check_positive, check_share
from ssl_backbones.distributed import gather_with_gradient
from ssl_backbones.losses import embedding_distances, place_distances, vicreg
from ssl_backbones.losses.dense import matched_positions
from ssl_backbones.losses.precision import widened
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import feature_map, normalisation, on_grid, pooled, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.heads import MLPHead
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import BYOL_VIEWS, Located, LocatedViews, MultiView, Policy


@dataclass(frozen=True)
class VICRegLConfig(MethodConfig):
    """VICRegL's choices; alpha is 0.75 in the paper's other ImageNet row."""

    name: ClassVar[str] = "vicregl"
    paper: ClassVar[Paper] = Paper(
        "VICRegL",
        "VICRegL: Self-Supervised Learning of Local Visual Features",
        "Bardes et al.",
        2022,
        "https://arxiv.org/abs/2210.01571",
    )
    hidden_dim: int = 8192
    """The width inside the head of whole views."""
    projection_dim: int = 8192
    """The width of the embeddings of whole views."""
    num_layers: int = 3
    """Linear layers of both heads."""
    local_dim: int = 512
    """The width inside the head of positions, and of their embeddings."""
    global_weight: float = 0.9
    """alpha: the weight of whole views; matched positions have the rest."""
    matches: int = 20
    """gamma: positions of a view, those with the nearest partners, that are compared."""
    grid: int = 0
    """Feature maps with more positions a side are pooled to that many; 0 for all that they have."""
    invariance: float = 25.0
    """lambda: the weight of the distance between paired embeddings."""
    variance: float = 25.0
    """mu: the weight of columns that vary too little."""
    covariance: float = 1.0
    """nu: the weight of columns that vary together."""
    sync_bn: bool = True
    """Take batch statistics over all processes; variance and covariance always are."""
    views: tuple[Policy, Policy] = BYOL_VIEWS

    def __post_init__(self) -> None:
        check_positive(hidden_dim=self.hidden_dim, projection_dim=self.projection_dim, num_layers=self.num_layers)
        check_positive(local_dim=self.local_dim, matches=self.matches)
        check_positive(invariance=self.invariance, variance=self.variance, covariance=self.covariance)
        check_share("global_weight", self.global_weight)
        check_at_least(self, grid=0)
        check_alike("views", self.views)

    def build(self, backbone: nn.Module) -> VICRegL:
        return VICRegL(backbone, self)


class VICRegL(Method):
    """VICReg of whole views, of positions at the same place of the image, and of positions that are alike."""

    accumulation_is_exact = False

    def __init__(self, backbone: nn.Module, config: VICRegLConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VICRegLConfig()
        self.backbone = backbone
        width, layers = width_of(backbone), config.num_layers
        self.projector = MLPHead(width, config.hidden_dim, config.projection_dim, layers)
        self.local_projector = MLPHead(width, config.local_dim, config.local_dim, layers)
        if config.sync_bn:
            synchronise_batch_norm(self)

    def transform(self, size: int) -> LocatedViews:
        return LocatedViews(MultiView(self.config.views, size, **normalisation(self.backbone)))

    def forward(self, batch: Located) -> dict[str, Tensor | float]:
        """Score two views (B, 3, S, S) of each image by their places in it. Eq. 4."""
        (view1, view2), geometry = batch
        (z1, local1, grid), (z2, local2, _) = self.embed(view1), self.embed(view2)
        corners1, corners2 = geometry.corners_in_pixels()
        by_place = self.local_loss(local1, local2, place_distances(corners1, corners2, grid))
        by_feature = self.local_loss(local1, local2, embedding_distances(local1, local2))
        whole = self.loss(z1, z2)
        share = self.config.global_weight
        loss = share * whole + (1 - share) * (by_place + by_feature)
        parts = {"pooled_loss": whole, "place_loss": by_place, "feature_loss": by_feature}
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}

    def embed(self, view: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """The embeddings of a view (B, 3, H, W), (B, D), and of its positions (B, P, L), so many down and across."""
        features = feature_map(self.backbone, view)
        coarse = on_grid(features, self.config.grid)
        local: Tensor = self.local_projector(coarse.flatten(2).mT)
        return self.projector(pooled(features)), local, (coarse.shape[2], coarse.shape[3])

    def local_loss(self, first: Tensor, second: Tensor, distances: Tensor) -> Tensor:
        """VICReg of the nearest positions' embeddings (B, P, L) and (B, Q, L), mean over the two directions."""
        forth = matched_positions(first, second, distances, self.config.matches)
        back = matched_positions(second, first, distances.mT, self.config.matches)
        return torch.stack([self.loss(*forth), self.loss(*back)]).mean()

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """VICReg of paired embeddings (B, ..., D), over the images of all processes."""
        config = self.config
        first, second = (gather_with_gradient(widened(rows)) for rows in (first, second))
        return vicreg(first, second, config.invariance, config.variance, config.covariance)
