"""Detection on top of a backbone, boxes alone or masks as well: everything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ssl_backbones.checks import check_positive
from ssl_backbones.data import Images, ImageSourceError
from ssl_backbones.evaluate.detection.annotations import AnnotatedImages
from ssl_backbones.evaluate.detection.box_views import BoxBatches, ResizeFlip, Target
from ssl_backbones.evaluate.detection.detectors import Head, Sampling, build_detector
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import normalisation
from ssl_backbones.typed.words import Hidden


@dataclass(frozen=True)
class DetectionConfig(MethodConfig):
    """The choices of a detector; the defaults are those of MoCo's protocol on VOC."""

    name: ClassVar[str] = "detection"
    head: Head = "faster_fpn"
    """Detector on top of the backbone."""
    classes: Hidden[int] = 20
    """Number of classes: those of the data, or more."""
    smallest: int = 480
    """The smallest short side of an image in training, in pixels; the largest, which is that of the test, is the run's
    size."""
    longest: int = 1333
    """The largest long side of an image, in pixels."""
    regions: int = 512
    """Regions per image that are scored in training."""
    anchors: int = 256
    """Anchors per image that are scored in training."""
    test_proposals: int = 1000
    """Proposals per image in a test."""
    width: int = 256
    """Channels of the feature pyramid."""
    precise_batches: int = 200
    """Batches of training images that batch statistics are recomputed from before a test; 0 for none."""

    def __post_init__(self) -> None:
        check_positive(
            classes=self.classes,
            smallest=self.smallest,
            longest=self.longest,
            regions=self.regions,
            anchors=self.anchors,
            test_proposals=self.test_proposals,
            width=self.width,
        )
        if self.precise_batches < 0:
            raise ValueError(f"precise_batches is {self.precise_batches}, but must be at least 0")

    @property
    def with_masks(self) -> bool:
        """True if the head predicts masks."""
        return self.head.startswith("mask")

    def build(self, backbone: nn.Module) -> Detection:
        return Detection(backbone, self)


class Detection(Method):
    """Objects are found and told apart. Batch statistics are each process's own unless they are made to be shared."""

    def __init__(self, backbone: nn.Module, config: DetectionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DetectionConfig()
        self.backbone = backbone
        self.detector = build_detector(
            backbone,
            config.head,
            config.classes,
            Sampling(config.regions, config.anchors, config.test_proposals),
            config.width,
        )

    def transform(self, size: int) -> ResizeFlip:
        return self.resize(size, self.config.smallest, 0.5)

    def test_transform(self, size: int) -> ResizeFlip:
        """The transform of test images: nothing by chance."""
        return self.resize(size, size, 0.0)

    def resize(self, size: int, smallest: int, flip_p: float) -> ResizeFlip:
        """Images normalised as the backbone expects them."""
        return ResizeFlip(size, smallest, self.config.longest, flip_p, **normalisation(self.backbone))

    def dataset(self, images: Images, size: int, seed: int) -> BoxBatches:
        """Batches of images and their objects; ImageSourceError where the head cannot tell what is in them."""
        return BoxBatches(self.checked(images), self.transform(size), seed, self.config.with_masks)

    def checked(self, images: Images) -> AnnotatedImages:
        """The images, if they have what the head learns from."""
        if not isinstance(images, AnnotatedImages):
            raise ImageSourceError("detection needs images with objects: give VOC, COCO or parquet annotations")
        if len(images.classes) > self.config.classes:
            raise ImageSourceError(
                f"{images.source} has {len(images.classes)} classes and the head tells {self.config.classes} apart: "
                f"set --classes to {len(images.classes)}"
            )
        if self.config.with_masks:
            images.require_masks(f"the head {self.config.head}")
        return images

    def forward(self, batch: tuple[tuple[Tensor, list[tuple[int, int]]], list[Target]]) -> dict[str, Tensor | float]:
        """Score images (B, 3, H, W) with their sizes, and their objects."""
        (images, sizes), targets = batch
        losses, _ = self.detector(images, sizes, targets)
        return {"loss": torch.stack(list(losses.values())).sum()} | {
            name.removeprefix("loss_"): value.detach() for name, value in losses.items()
        }

    @torch.no_grad()
    def find(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[dict[str, Tensor]]:
        """Boxes, labels from 1, scores and masks (N, 1, 28, 28) or (N, 1, 14, 14) of images; in eval mode."""
        detections: list[dict[str, Tensor]] = self.detector(images, list(sizes))[1]
        return detections
