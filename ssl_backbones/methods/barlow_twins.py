"""Barlow Twins: redundancy reduction. Zbontar et al., 2021. https://arxiv.org/abs/2103.03230"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ssl_backbones.checks import check_positive
from ssl_backbones.distributed import gather_with_gradient
from ssl_backbones.losses import barlow_twins
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import feature_map, normalisation, pooled, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.heads import MLPHead
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import BYOL_VIEWS, MultiView, Policy


@dataclass(frozen=True)
class BarlowTwinsConfig(MethodConfig):
    """Barlow Twins' choices."""

    name: ClassVar[str] = "barlow_twins"
    paper: ClassVar[Paper] = Paper(
        "Barlow Twins",
        "Barlow Twins: Self-Supervised Learning via Redundancy Reduction",
        "Zbontar et al.",
        2021,
        "https://arxiv.org/abs/2103.03230",
    )
    hidden_dim: int = 8192
    """The width inside the head."""
    projection_dim: int = 8192
    """The width of the embeddings that are compared."""
    num_layers: int = 3
    """Linear layers of the head."""
    off_diagonal: float = 0.005
    """lambda: what the correlations of different columns weigh against those of equal ones."""
    sync_bn: bool = True
    """Take batch statistics over all processes; the correlations always are."""
    views: tuple[Policy, Policy] = BYOL_VIEWS

    def __post_init__(self) -> None:
        check_positive(hidden_dim=self.hidden_dim, projection_dim=self.projection_dim, num_layers=self.num_layers)
        check_positive(off_diagonal=self.off_diagonal)

    def build(self, backbone: nn.Module) -> BarlowTwins:
        return BarlowTwins(backbone, self)


class BarlowTwins(Method):
    """Equal columns of the two views' embeddings are to correlate fully over the batch, different ones not at all."""

    accumulation_is_exact = False

    def __init__(self, backbone: nn.Module, config: BarlowTwinsConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or BarlowTwinsConfig()
        self.backbone = backbone
        self.projector = MLPHead(width_of(backbone), config.hidden_dim, config.projection_dim, config.num_layers)
        if config.sync_bn:
            synchronise_batch_norm(self)

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.views, size, **normalisation(self.backbone))

    def forward(self, batch: list[Tensor]) -> dict[str, Tensor | float]:
        z1, z2 = (gather_with_gradient(self.embed(view)) for view in batch)
        return {"loss": barlow_twins(z1, z2, self.config.off_diagonal)}

    def embed(self, view: Tensor) -> Tensor:
        """The projection (B, D) of a view (B, 3, H, W)."""
        projection: Tensor = self.projector(pooled(feature_map(self.backbone, view)))
        return projection
