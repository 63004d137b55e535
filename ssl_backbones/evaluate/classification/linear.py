"""A linear probe: one layer learns to classify the output of a frozen backbone.

He et al., 2020 (https://arxiv.org/abs/1911.05722), section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssl_backbones.evaluate.classification.classifier import Classifier, check_head, linear_layer, output_width
from ssl_backbones.evaluate.classification.labelled_views import LabelledViews
from ssl_backbones.methods.method import MethodConfig


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


class LinearProbe(Classifier):
    """One layer learns; the backbone stays as it is, its batch statistics too: it is in eval mode throughout."""

    task = "a linear probe"
    config: LinearConfig

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

    def logits(self, images: Tensor) -> Tensor:
        """The scores (B, classes) of images (B, 3, S, S)."""
        with torch.no_grad():
            features = self.backbone(images)
        logits: Tensor = self.head(features)
        return logits
