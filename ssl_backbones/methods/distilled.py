"""Distillation: a small network learns to predict the features of a frozen teacher, without labels of the images.

A regression by cosine through a head that is thrown away (SimReg: Navaneet et al., 2021. https://arxiv.org/abs/2201.05131),
towards features less their mean, so that what all images share teaches nothing; and of feature maps, cell by cell
(AM-RADIO: Ranzinger et al., 2024. https://arxiv.org/abs/2312.06709).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ssl_backbones.checks import check, check_positive
from ssl_backbones.data import BatchDataset, Images
from ssl_backbones.losses import cosine_distance, map_distance
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import feature_map, normalisation, pooled, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.heads import MLPHead
from ssl_backbones.models.teacher import Seen
from ssl_backbones.models.teacher_branch import TeacherBranch, TeacherConfig
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import DISTILLED_VIEW, MultiView, Policy

KEPT = "0 where features are kept; or show the teacher every view (--method.kept '')"


@dataclass(frozen=True)
class DistilledConfig(TeacherConfig, MethodConfig):
    """The choices of distillation: its teacher, and these."""

    name: ClassVar[str] = "distilled"
    paper: ClassVar[Paper] = Paper(
        "distillation",
        "SimReg: Regression as a Simple Yet Effective Tool for Self-supervised Knowledge Distillation",
        "Navaneet et al.",
        2021,
        "https://arxiv.org/abs/2201.05131",
    )
    dense_weight: float = 0.0
    """Weight of the feature maps against that of the pooled features; 0 for none. Kept features have no maps."""
    hidden_dim: int | None = None
    """The width inside the head; None for twice the student's."""
    sync_bn: bool = True
    """Take batch statistics over all processes."""
    views: tuple[Policy] = (DISTILLED_VIEW,)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 <= self.dense_weight < np.inf, "dense_weight", self.dense_weight, "at least 0")
        check(not (self.kept and self.dense_weight), "dense_weight", self.dense_weight, KEPT)
        if self.hidden_dim is not None:
            check_positive(hidden_dim=self.hidden_dim)

    def build(self, backbone: nn.Module) -> Distilled:
        return Distilled(backbone, self)


class Distilled(Method):
    """A view's pooled features, through a head, predict the teacher's; its feature map predicts the teacher's map."""

    def __init__(self, backbone: nn.Module, config: DistilledConfig | None = None) -> None:
        """Raise TeacherError for a teacher that nothing is known of, or that has not what is asked for."""
        super().__init__()
        self.config = config = config or DistilledConfig()
        self.backbone = backbone
        dense, width = config.dense_weight, width_of(backbone)
        maps = f"dense_weight {dense:g} asks for: set --method.dense_weight 0" if dense else ""
        self.branch = TeacherBranch(config, self.transform(1), maps)
        self.projector = MLPHead(width, config.hidden_dim or 2 * width, self.branch.width)
        if dense:
            self.map_projector = nn.Conv2d(width, self.branch.map_width, 1)
        if config.sync_bn:
            synchronise_batch_norm(self)

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.views, size, **normalisation(self.backbone))

    def dataset(self, images: Images, size: int, seed: int) -> BatchDataset:
        """Batches of views, with the teacher's features of images' middle squares where those are kept.

        TeacherError for a teacher that cannot be had, and for kept features that are of something else.
        """
        return self.branch.batches(images, self.transform(size), seed)

    def account(self) -> dict[str, Any]:
        return self.branch.account()

    def forward(self, batch: Any) -> dict[str, Tensor | float]:
        """Score a batch: views [(B, 3, S, S)] and, where they are kept, the teacher's features (B, D)."""
        if self.config.kept:
            (view,), features = batch
            seen = Seen(self.branch.centred(features), None)
        else:
            (view,) = batch
            seen = self.branch.look(view)
        maps = feature_map(self.backbone, view)
        loss = cosine_distance(self.projector(pooled(maps)), seen.features) / 2
        if seen.maps is None:
            return {"loss": loss, "chance": 1.0}
        predicted = interpolate(self.map_projector(maps), seen.maps.shape[-2:], mode="bilinear")
        dense = map_distance(predicted, seen.maps)
        total = loss + self.config.dense_weight * dense
        return {"loss": total, "pooled_loss": loss.detach(), "dense_loss": dense.detach()}
