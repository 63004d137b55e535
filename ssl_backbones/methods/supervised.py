"""Training with labels: what pretraining without them is held against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ssl_backbones.checks import check_positive
from ssl_backbones.data import Images, ImageSourceError, NumberedBatches, require_labels
from ssl_backbones.losses import accuracy, cross_entropy
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import feature_map, normalisation, pooled, width_of
from ssl_backbones.models.crop_flip_choices import CropFlipChoices
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import MultiView, Policy, SingleView, Transform


@dataclass(frozen=True)
class SupervisedConfig(CropFlipChoices, MethodConfig):
    """The choices of training with labels."""

    name: ClassVar[str] = "supervised"
    paper: ClassVar[Paper] = Paper(
        "supervised",
        "Deep Residual Learning for Image Recognition",
        "He et al.",
        2016,
        "https://arxiv.org/abs/1512.03385",
        labels="with labels",
    )
    classes: int = 10
    """Classes of the head: those of the data, or more."""
    views: Policy | None = None
    """The augmentation of large images, such as SUPERVISED_VIEW; None for small ones: shifted and mirrored."""
    crop_padding: float = 1 / 8
    """Without views, black around an image before a crop of its own size, as a share of the side; 0 for no crop."""
    flip_p: float = 0.5
    """Without views, the chance of a mirror image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(classes=self.classes)

    def build(self, backbone: nn.Module) -> Supervised:
        return Supervised(backbone, self)


class Supervised(Method):
    """Each image is told by its label."""

    def __init__(self, backbone: nn.Module, config: SupervisedConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SupervisedConfig()
        self.backbone = backbone
        self.head = nn.Linear(width_of(backbone), config.classes)

    def transform(self, size: int) -> Transform:
        if self.config.views is not None:
            return SingleView(MultiView((self.config.views,), size, **normalisation(self.backbone)))
        return self.config.crop_flip(size, self.backbone)

    def dataset(self, images: Images, size: int, seed: int) -> NumberedBatches:
        """Batches with the label of each image; ImageSourceError where there are none, or too many."""
        labels = require_labels(images, "supervised training")
        if len(images.classes) > self.config.classes:
            raise ImageSourceError(
                f"the data have {len(images.classes)} classes and the head tells {self.config.classes} apart: "
                f"set the method's classes to {len(images.classes)}"
            )
        return NumberedBatches(images, self.transform(size), seed, labels)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor | float]:
        """Score images (B, 3, S, S) and their labels (B,)."""
        images, labels = batch
        logits = self.logits(images)
        loss = cross_entropy(logits, labels)
        return {"loss": loss, "accuracy": accuracy(logits, labels), "chance": math.log(self.config.classes)}

    def logits(self, images: Tensor) -> Tensor:
        """The logits (B, classes) of images (B, 3, S, S)."""
        logits: Tensor = self.head(pooled(feature_map(self.backbone, images)))
        return logits
