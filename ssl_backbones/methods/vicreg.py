"""VICReg: variance, invariance, covariance. Bardes et al., 2022. https://arxiv.org/abs/2105.04906"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ssl_backbones.checks import check_positive
from ssl_backbones.distributed import gather_with_gradient
from ssl_backbones.losses import vicreg
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import feature_map, normalisation, pooled, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.heads import MLPHead
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import VICREG_VIEWS, MultiView, Policy


@dataclass(frozen=True)
class VICRegConfig(MethodConfig):
    """VICReg's choices."""

    name: ClassVar[str] = "vicreg"
    paper: ClassVar[Paper] = Paper(
        "VICReg",
        "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
        "Bardes et al.",
        2022,
        "https://arxiv.org/abs/2105.04906",
    )
    hidden_dim: int = 8192
    """The width inside the head."""
    projection_dim: int = 8192
    """The width of the embeddings that are compared."""
    num_layers: int = 3
    """Linear layers of the head."""
    invariance: float = 25.0
    """lambda: the weight of the distance between paired embeddings."""
    variance: float = 25.0
    """mu: the weight of columns that vary too little, as in eq. 6; 12.5 here is 25 in the authors' code."""
    covariance: float = 1.0
    """nu: the weight of columns that vary together."""
    sync_bn: bool = True
    """Take batch statistics over all processes; variance and covariance always are."""
    views: tuple[Policy, Policy] = VICREG_VIEWS

    def __post_init__(self) -> None:
        check_positive(hidden_dim=self.hidden_dim, projection_dim=self.projection_dim, num_layers=self.num_layers)
        check_positive(invariance=self.invariance, variance=self.variance, covariance=self.covariance)

    def build(self, backbone: nn.Module) -> VICReg:
        return VICReg(backbone, self)


class VICReg(Method):
    """The two views' embeddings are to be near each other, and their columns to vary, each for itself."""

    accumulation_is_exact = False

    def __init__(self, backbone: nn.Module, config: VICRegConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VICRegConfig()
        self.backbone = backbone
        self.projector = MLPHead(width_of(backbone), config.hidden_dim, config.projection_dim, config.num_layers)
        if config.sync_bn:
            synchronise_batch_norm(self)

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.views, size, **normalisation(self.backbone))

    def forward(self, batch: list[Tensor]) -> dict[str, Tensor | float]:
        z1, z2 = (gather_with_gradient(self.embed(view)) for view in batch)
        config = self.config
        return {"loss": vicreg(z1, z2, config.invariance, config.variance, config.covariance)}

    def embed(self, view: Tensor) -> Tensor:
        """The projection (B, D) of a view (B, 3, H, W)."""
        projection: Tensor = self.projector(pooled(feature_map(self.backbone, view)))
        return projection
