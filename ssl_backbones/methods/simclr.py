"""SimCLR: a simple framework for contrastive learning. Chen et al., 2020. https://arxiv.org/abs/2002.05709"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssl_backbones.checks import check_alike, check_positive
from ssl_backbones.distributed import gather_with_gradient, rank, world_size
from ssl_backbones.losses import nt_xent
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import feature_map, normalisation, pooled, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.heads import MLPHead
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import SIMCLR_VIEWS, MultiView, Policy


@dataclass(frozen=True)
class SimCLRConfig(MethodConfig):
    """SimCLR's choices."""

    name: ClassVar[str] = "simclr"
    paper: ClassVar[Paper] = Paper(
        "SimCLR",
        "A Simple Framework for Contrastive Learning of Visual Representations",
        "Chen et al.",
        2020,
        "https://arxiv.org/abs/2002.05709",
    )
    hidden_dim: int = 2048
    """The width inside the head."""
    projection_dim: int = 128
    """The width of the embeddings that are compared."""
    num_layers: int = 2
    """Linear layers of the head."""
    temperature: float = 0.1
    """Divides the cosines."""
    sync_bn: bool = True
    """Take batch statistics over all processes, so that no part of the batch can be told by its own."""
    views: tuple[Policy, Policy] = SIMCLR_VIEWS

    def __post_init__(self) -> None:
        check_positive(hidden_dim=self.hidden_dim, projection_dim=self.projection_dim, num_layers=self.num_layers)
        check_positive(temperature=self.temperature)
        check_alike("views", self.views)

    def build(self, backbone: nn.Module) -> SimCLR:
        return SimCLR(backbone, self)


class SimCLR(Method):
    """A view's embedding finds the other view's among all the views of the batch.

    The paper's head is two layers with a ReLU between them; that each is normalised, the last by a scale without a
    shift, is how the authors' code has it.
    """

    accumulation_is_exact = False

    def __init__(self, backbone: nn.Module, config: SimCLRConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SimCLRConfig()
        self.backbone = backbone
        head = MLPHead(width_of(backbone), config.hidden_dim, config.projection_dim, config.num_layers)
        last = nn.BatchNorm1d(config.projection_dim)
        last.bias.requires_grad_(False)
        self.projector = nn.Sequential(head, last)
        if config.sync_bn:
            synchronise_batch_norm(self)

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.views, size, **normalisation(self.backbone))

    def forward(self, batch: list[Tensor]) -> dict[str, Tensor | float]:
        z1, z2 = self.embed(torch.cat(batch)).chunk(2)  # both views in one batch, whose statistics they share
        everyone = gather_with_gradient(torch.stack([z1, z2], dim=1))
        loss = nt_xent(z1, z2, self.config.temperature, everyone, position=rank() * len(z1))
        return {"loss": loss, "chance": math.log(2 * world_size() * len(z1) - 1)}

    def embed(self, views: Tensor) -> Tensor:
        """The projections (B, D) of views (B, 3, H, W)."""
        projection: Tensor = self.projector(pooled(feature_map(self.backbone, views)))
        return projection
