"""Supervised contrastive learning. Khosla et al., 2020. https://arxiv.org/abs/2004.11362"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_backbones.checks import check_alike, check_positive
from ssl_backbones.data import Images, NumberedBatches, require_labels
from ssl_backbones.data.subset import Subset
from ssl_backbones.distributed import gather, gather_with_gradient, rank
from ssl_backbones.losses import supcon
from ssl_backbones.losses.precision import widened
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import feature_map, normalisation, pooled, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.heads import moco_head
from ssl_backbones.registry.papers import Paper
from ssl_backbones.typed.values import check_choices
from ssl_backbones.views import SUPCON_VIEWS, MultiView, Policy

Scale = Literal["none", "tau", "tau/0.07"]


@dataclass(frozen=True)
class SupConConfig(MethodConfig):
    """SupCon's choices."""

    name: ClassVar[str] = "supcon"
    paper: ClassVar[Paper] = Paper(
        "SupCon",
        "Supervised Contrastive Learning",
        "Khosla et al.",
        2020,
        "https://arxiv.org/abs/2004.11362",
        labels="with labels",
    )
    hidden_dim: int = 2048
    """The width inside the head."""
    projection_dim: int = 128
    """The width of the embeddings that are compared."""
    temperature: float = 0.1
    """tau: the temperature of the softmax."""
    scale: Scale = "tau/0.07"
    """The factor of the loss: none as in the paper, the temperature as in the authors' TensorFlow, or over 0.07 as in
    their PyTorch. Another one asks for another learning rate."""
    sync_bn: bool = True
    """Take batch statistics over all processes."""
    views: tuple[Policy, Policy] = SUPCON_VIEWS

    def __post_init__(self) -> None:
        check_positive(hidden_dim=self.hidden_dim, projection_dim=self.projection_dim, temperature=self.temperature)
        check_choices(self)
        check_alike("views", self.views)

    @property
    def factor(self) -> float:
        """The number that the loss is multiplied by."""
        return {"none": 1.0, "tau": self.temperature, "tau/0.07": self.temperature / 0.07}[self.scale]

    def build(self, backbone: nn.Module) -> SupCon:
        return SupCon(backbone, self)


class SupCon(Method):
    """Each view is contrasted with all views of the batch; those of the images of its class are its positives."""

    accumulation_is_exact = False

    def __init__(self, backbone: nn.Module, config: SupConConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SupConConfig()
        self.backbone = backbone
        self.head = moco_head(width_of(backbone), config.hidden_dim, config.projection_dim)
        if config.sync_bn:
            synchronise_batch_norm(self)

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.views, size, **normalisation(self.backbone))

    def dataset(self, images: Images, size: int, seed: int) -> NumberedBatches:
        """Batches with the label of each image; ImageSourceError where no image has one."""
        return NumberedBatches(images, self.transform(size), seed, labels_or_own(images))

    def forward(self, batch: tuple[list[Tensor], Tensor]) -> dict[str, Tensor | float]:
        """Score two views (B, 3, S, S) of each image, and the images' labels (B,)."""
        views, labels = batch
        z = torch.stack(self.embed(torch.cat(views)).chunk(2), dim=1)  # both views share their batch statistics
        everyone, labels_of_all = gather_with_gradient(z), gather(labels)
        loss = supcon(z, labels, self.config.temperature, everyone, labels_of_all, position=rank() * len(z))
        chance = math.log(2 * len(everyone) - 1)
        return {"loss": self.config.factor * loss, "chance": self.config.factor * chance}

    def embed(self, views: Tensor) -> Tensor:
        """The projections (B, D) of views (B, 3, H, W), unit vectors."""
        return normalize(widened(self.head(pooled(feature_map(self.backbone, views)))), dim=1)


def labels_or_own(images: Images) -> np.ndarray:
    """The labels (N,) of images; one without gets a label that no other has, and only its own views as positives.

    ImageSourceError where all are without, or where one is wrong.
    """
    missing = None if images.labels is None else images.labels == -1
    if images.labels is None or missing is None or missing.all() or not missing.any():
        return require_labels(images, "SupCon")
    require_labels(Subset(images, np.flatnonzero(~missing)), "SupCon")
    return np.where(missing, len(images.classes) + np.arange(len(images)), images.labels)
