"""A linear probe: one layer learns to classify the output of a frozen backbone.

He et al., 2020 (https://arxiv.org/abs/1911.05722), section 4.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssl_backbones.checks import check
from ssl_backbones.data import Images, NumberedBatches
from ssl_backbones.evaluate.classification.labelled_views import LabelledViews, numbered
from ssl_backbones.losses import accuracy, cross_entropy
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import width_of
from ssl_backbones.views import CenterCrop, Transform


@dataclass(frozen=True)
class LinearConfig(MethodConfig):
    """The choices of a linear probe."""

    name: ClassVar[str] = "linear"
    classes: int = 0
    """Number of classes; 0 for those of the data."""
    head_std: float | None = 0.01
    """Standard deviation of the layer's first weights, its biases being 0; None for torch's own first values."""
    views: LabelledViews = field(default_factory=LabelledViews)

    def __post_init__(self) -> None:
        check_head(self.classes, self.head_std)

    def build(self, backbone: nn.Module) -> LinearProbe:
        return LinearProbe(backbone, self)


class LinearProbe(Method):
    """One layer learns; the backbone stays as it is, its batch statistics too: it is in eval mode throughout."""

    def __init__(self, backbone: nn.Module, config: LinearConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone.requires_grad_(False)
        self.head = linear_layer(output_width(backbone), config.classes, config.head_std)
        self.train()

    def train(self, mode: bool = True) -> LinearProbe:
        """Training mode, for all but the backbone."""
        super().train(mode)
        self.backbone.eval()
        return self

    def transform(self, size: int) -> Transform:
        return self.config.views.to_train(self.backbone, size)

    def to_test(self, size: int) -> CenterCrop:
        """The transform of test images."""
        return self.config.views.to_test(self.backbone, size)

    def dataset(self, images: Images, size: int, seed: int) -> NumberedBatches:
        """Batches of images with their labels."""
        return numbered(images, self.transform(size), seed, self.config.classes, "a linear probe")

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor | float]:
        """Score images (B, 3, S, S) and their labels (B,)."""
        images, labels = batch
        logits = self.logits(images)
        loss = cross_entropy(logits, labels)
        return {"loss": loss, "accuracy": accuracy(logits, labels), "chance": math.log(self.config.classes)}

    def logits(self, images: Tensor) -> Tensor:
        """The scores (B, classes) of images (B, 3, S, S)."""
        with torch.no_grad():
            features = self.backbone(images)
        logits: Tensor = self.head(features)
        return logits


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
