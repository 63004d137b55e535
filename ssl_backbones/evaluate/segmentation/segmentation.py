"""Semantic segmentation: a class for each pixel.

A fully convolutional head on a dilated backbone, as LEWEL and MoCo transfer to Pascal VOC. Huang et al., 2022
(https://arxiv.org/abs/2203.14898); He et al., 2020, appendix (https://arxiv.org/abs/1911.05722).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_backbones.checks import check, check_at_least
from ssl_backbones.distributed import gather, world_size
from ssl_backbones.evaluate.detection.voc_folder import VOC_CLASSES
from ssl_backbones.evaluate.segmentation.fcn import STRIDES, FCNHead, enlarged, widths_of
from ssl_backbones.evaluate.segmentation.mask_values import IGNORED
from ssl_backbones.evaluate.segmentation.masks import Scenes
from ssl_backbones.evaluate.segmentation.scene_views import ScaleCropFlip, SceneBatches, WholeScene
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import normalisation
from ssl_backbones.models.batch_norm import synchronise_batch_norm


@dataclass(frozen=True)
class SegmentationConfig(MethodConfig):
    """The choices of a segmentation."""

    name: ClassVar[str] = "segmentation"
    classes: int = 0
    """Number of classes, the background among them; 0 for as many as the data have."""
    output_stride: int = 8
    """Pixels for each position of the last feature map, by dilation where the network strides further; 0: its own."""
    channels: int = 512
    """Channels of the head's convolutions."""
    convs: int = 2
    """3x3 convolutions of the head."""
    dilation: int = 1
    """Dilation of the head's convolutions."""
    concat: bool = True
    """Join the feature map to what the convolutions made of it, and mix the two by another one."""
    dropout: float = 0.1
    """Dropout of channels before the classifier."""
    auxiliary: float = 0.4
    """Weight of the loss of a smaller head on the stage before the last; 0 for no such head."""
    auxiliary_channels: int = 256
    """Channels of the auxiliary head's one convolution."""
    short_side: int = 0
    """Shorter side of an image at scale 1, in training and testing, in pixels; 0 keeps its own."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Images are scaled by a factor drawn uniformly."""
    max_share: float = 1.0
    """Up to ten crops are proposed until no class has this share of the known pixels; 1 takes the first."""
    flip_p: float = 0.5
    """Probability of a horizontal flip."""

    def __post_init__(self) -> None:
        check(0 <= self.classes <= IGNORED, "task.classes", self.classes, f"from 0 to {IGNORED}")
        check(self.output_stride in STRIDES, "task.output_stride", self.output_stride, f"one of {STRIDES}")
        check_at_least(self, "task.", channels=1, convs=1, dilation=1, auxiliary_channels=1, short_side=0)
        check(0 <= self.dropout < 1, "task.dropout", self.dropout, "at least 0 and below 1")
        check(0 <= self.auxiliary < math.inf, "task.auxiliary", self.auxiliary, "at least 0")
        low, high = self.scale
        check(0 < low <= high < math.inf, "task.scale", self.scale, "0 < smallest <= largest")
        check(0 < self.max_share <= 1, "task.max_share", self.max_share, "above 0 and at most 1")
        check(0 <= self.flip_p <= 1, "task.flip_p", self.flip_p, "a probability in [0, 1]")

    def build(self, backbone: nn.Module) -> Segmentation:
        return Segmentation(backbone, self)


class Segmentation(Method):
    """Every position of the feature map is told by its class, and the scores are enlarged to the image.

    The backbone gives two feature maps, as `evaluate.segmentation.fcn.dilated` makes it. BatchNorm goes over all
    processes.
    """

    def __init__(self, backbone: nn.Module, config: SegmentationConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SegmentationConfig(classes=len(VOC_CLASSES) + 1)
        check(config.classes >= 1, "task.classes", config.classes, "at least 1 to build a head")
        self.backbone = backbone
        before, last = widths_of(backbone)
        self.head = FCNHead(
            last, config.channels, config.classes, config.convs, config.dilation, config.concat, config.dropout
        )
        self.auxiliary_head = (
            FCNHead(before, config.auxiliary_channels, config.classes, 1, 1, False, config.dropout)
            if config.auxiliary
            else None
        )
        if world_size() > 1:
            synchronise_batch_norm(self)

    @property
    def chance(self) -> float:
        """The loss of heads that tell no class from another."""
        return (1 + self.config.auxiliary) * math.log(self.config.classes)

    def transform(self, size: int) -> ScaleCropFlip:
        chosen = self.config
        return ScaleCropFlip(
            size, chosen.short_side, chosen.scale, chosen.max_share, chosen.flip_p, **normalisation(self.backbone)
        )

    def whole(self) -> WholeScene:
        """The transform of test images: whole, without augmentation."""
        return WholeScene(self.config.short_side, **normalisation(self.backbone))

    def dataset(self, images: Scenes, size: int, seed: int) -> SceneBatches:  # type: ignore[override]
        """Batches of images with their masks."""
        return SceneBatches(images, self.transform(size), seed)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor | float]:
        """Score images (B, 3, S, S) and the classes (B, S, S) of their pixels."""
        images, masks = batch
        before, last = self.backbone(images)
        scores = enlarged(self.head(last), masks.shape[1:])
        loss = mean_loss(scores, masks)
        known = masks != IGNORED
        right = ((scores.argmax(dim=1) == masks) & known).sum() / known.sum().clamp(min=1)
        told: dict[str, Tensor | float] = {"pixel_accuracy": right.detach(), "chance": self.chance}
        if self.auxiliary_head is None:
            return {"loss": loss, **told}
        auxiliary = mean_loss(enlarged(self.auxiliary_head(before), masks.shape[1:]), masks)
        return {
            "loss": loss + self.config.auxiliary * auxiliary,
            "head_loss": loss.detach(),
            "auxiliary_loss": auxiliary.detach(),
            **told,
        }

    def scores(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """The scores (B, K, H, W) of images (B, 3, h, w) at another size."""
        return enlarged(self.head(self.backbone(images)[-1]), size)


def mean_loss(scores: Tensor, masks: Tensor) -> Tensor:
    """The mean cross entropy over the known pixels of all processes; 0 where none is known.

    Processes' gradients are averaged, so each process's sum is divided by its share of what all of them know.
    """
    total = cross_entropy(scores, masks, ignore_index=IGNORED, reduction="sum")
    known = gather((masks != IGNORED).sum().view(1)).sum()
    return total * world_size() / known.clamp(min=1)
