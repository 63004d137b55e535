"""Fine-tuning: the whole network learns to name classes, from where the backbone stands.

The semi-supervised protocols of LEWEL (Huang et al., 2022. https://arxiv.org/abs/2203.14898), with one new layer, and
the transfer of Pham et al., 2021 (https://arxiv.org/abs/2108.00475), with two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from ssl_backbones.checks import check_at_least
from ssl_backbones.distributed import world_size
from ssl_backbones.evaluate.classification.classifier import Classifier, check_head, linear_layer, output_width
from ssl_backbones.evaluate.classification.labelled_views import LabelledViews
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.models.batch_norm import synchronise_batch_norm


@dataclass(frozen=True)
class FinetuneConfig(MethodConfig):
    """The choices of fine-tuning."""

    name: ClassVar[str] = "finetune"
    classes: int = 0
    """Number of classes; 0 for those of the data."""
    hidden: int = 0
    """Width of a hidden layer with ReLU before the last; 0 for none."""
    head_std: float | None = None
    """Standard deviation of the last layer's first weights, its biases being 0; None for torch's own first values."""
    views: LabelledViews = field(default_factory=LabelledViews)

    def __post_init__(self) -> None:
        check_head(self.classes, self.head_std)
        check_at_least(self, "task.", hidden=0)

    def build(self, backbone: nn.Module) -> Finetune:
        return Finetune(backbone, self)


class Finetune(Classifier):
    """Backbone and head learn from labels; BatchNorm goes over all processes, in LEWEL's code over each GPU."""

    task = "fine-tuning"
    config: FinetuneConfig

    def __init__(self, backbone: nn.Module, config: FinetuneConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone.requires_grad_(True)
        width = output_width(backbone)
        hidden = [nn.Linear(width, config.hidden), nn.ReLU()] if config.hidden else []
        last = linear_layer(config.hidden or width, config.classes, config.head_std)
        self.head = nn.Sequential(*hidden, last)
        if world_size() > 1:
            synchronise_batch_norm(self)

    def logits(self, images: Tensor) -> Tensor:
        """The scores (B, classes) of images (B, 3, S, S)."""
        logits: Tensor = self.head(self.backbone(images))
        return logits
