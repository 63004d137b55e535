"""The part that a linear probe and fine-tuning share: a backbone with a head that names the classes of images."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Protocol

from torch import Tensor, nn

from ssl_backbones.checks import check
from ssl_backbones.data import Images, NumberedBatches
from ssl_backbones.evaluate.classification.labelled_views import LabelledViews, numbered
from ssl_backbones.losses import accuracy, cross_entropy
from ssl_backbones.methods.method import Method
from ssl_backbones.models.backbone import width_of
from ssl_backbones.views import CenterCrop, Transform


class ClassifierConfig(Protocol):
    """The choices that both have."""

    @property
    def classes(self) -> int:
        """Number of classes."""

    @property
    def views(self) -> LabelledViews:
        """The views of the images."""


class Classifier(Method):
    """Images (B, 3, S, S) to scores (B, classes), trained by the cross-entropy with their labels."""

    task: ClassVar[str]
    """The task that wants the labels, as a refusal names it."""
    config: ClassifierConfig
    head: nn.Module

    @property
    def layer(self) -> nn.Linear | None:
        """The head, where it is one linear layer."""
        parts = list(self.head) if isinstance(self.head, nn.Sequential) else [self.head]
        return parts[0] if len(parts) == 1 and isinstance(parts[0], nn.Linear) else None

    def transform(self, size: int) -> Transform:
        return self.config.views.to_train(self.backbone, size)

    def to_test(self, size: int) -> CenterCrop:
        """The transform of test images."""
        return self.config.views.to_test(self.backbone, size)

    def dataset(self, images: Images, size: int, seed: int) -> NumberedBatches:
        """Batches of images with their labels."""
        return numbered(images, self.transform(size), seed, self.config.classes, self.task)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor | float]:
        """Score images (B, 3, S, S) and their labels (B,)."""
        images, labels = batch
        logits = self.logits(images)
        loss = cross_entropy(logits, labels)
        return {"loss": loss, "accuracy": accuracy(logits, labels), "chance": math.log(self.config.classes)}

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """The scores (B, classes) of images (B, 3, S, S)."""


def check_head(classes: int, std: float | None) -> None:
    """Refuse a head that cannot be made."""
    check(classes >= 0, "task.classes", classes, "at least 1, or 0 for those of the data")
    check(std is None or 0 < std < math.inf, "task.head_std", std, "above 0, or None")


def linear_layer(width: int, classes: int, std: float | None) -> nn.Linear:
    """Rows (B, D) to logits (B, classes): weights N(0, std) and biases 0, or both as torch draws them."""
    layer = nn.Linear(width, classes)
    if std is not None:
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
    return layer


def output_width(backbone: nn.Module) -> int:
    """The number D of the whole backbone's outputs: of some of timm's, more than its last map's channels."""
    width = width_of(backbone)
    return int(getattr(backbone, "head_hidden_size", None) or width)
