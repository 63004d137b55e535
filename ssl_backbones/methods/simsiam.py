"""SimSiam: exploring simple Siamese representation learning. Chen and He, 2021. https://arxiv.org/abs/2011.10566"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ssl_backbones.checks import check_positive
from ssl_backbones.losses import cosine_distance
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import feature_map, normalisation, pooled, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.heads import MLPHead
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import MOCO_V2_VIEWS, MultiView, Policy


@dataclass(frozen=True)
class SimSiamConfig(MethodConfig):
    """SimSiam's choices."""

    name: ClassVar[str] = "simsiam"
    paper: ClassVar[Paper] = Paper(
        "SimSiam",
        "Exploring Simple Siamese Representation Learning",
        "Chen and He",
        2021,
        "https://arxiv.org/abs/2011.10566",
    )
    hidden_dim: int = 2048
    """The width inside the head."""
    projection_dim: int = 2048
    """The width of the embeddings that are compared."""
    num_layers: int = 3
    """Linear layers of the head."""
    projector_affine: bool = False
    """Scale and shift after the projector's last BatchNorm; the authors' code has none, the paper does not say."""
    predictor_dim: int = 512
    """The narrow layer in the middle of the predictor."""
    sync_bn: bool = True
    """Take batch statistics over all processes."""
    views: tuple[Policy, Policy] = MOCO_V2_VIEWS

    def __post_init__(self) -> None:
        check_positive(hidden_dim=self.hidden_dim, projection_dim=self.projection_dim, num_layers=self.num_layers)
        check_positive(predictor_dim=self.predictor_dim)

    def build(self, backbone: nn.Module) -> SimSiam:
        return SimSiam(backbone, self)


class SimSiam(Method):
    """Each view's embedding predicts the other's as the same network sees it, which gets no gradient there.

    The loss is the paper's, the negative cosine in [-1, 1], plus 1.
    """

    def __init__(self, backbone: nn.Module, config: SimSiamConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SimSiamConfig()
        self.backbone = backbone
        self.projector = nn.Sequential(
            MLPHead(width_of(backbone), config.hidden_dim, config.projection_dim, config.num_layers),
            nn.BatchNorm1d(config.projection_dim, affine=config.projector_affine),
        )
        self.predictor = MLPHead(config.projection_dim, config.predictor_dim, config.projection_dim)
        if config.sync_bn:
            synchronise_batch_norm(self)

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.views, size, **normalisation(self.backbone))

    def forward(self, batch: list[Tensor]) -> dict[str, Tensor | float]:
        view1, view2 = batch
        z1, z2 = self.embed(view1), self.embed(view2)
        distances = cosine_distance(self.predictor(z1), z2) + cosine_distance(self.predictor(z2), z1)
        return {"loss": distances / 4}  # each is 2 - 2 cos, and the paper halves each -cos

    def embed(self, view: Tensor) -> Tensor:
        """The projection (B, D) of a view (B, 3, H, W)."""
        projection: Tensor = self.projector(pooled(feature_map(self.backbone, view)))
        return projection
