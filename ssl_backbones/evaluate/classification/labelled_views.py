"""Views of labelled images: random crops and flips to train on, the middle crop to test on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from torch import nn

from ssl_backbones.checks import check
from ssl_backbones.data import Images, ImageSourceError, NumberedBatches, require_labels
from ssl_backbones.models.backbone import center_crop
from ssl_backbones.typed.values import check_types
from ssl_backbones.views import CenterCrop, MultiView, Policy, SingleView, Transform


@dataclass(frozen=True)
class LabelledViews:
    """The choices of these views."""

    augment: bool = True
    """Show crops and mirror images by chance in training; without it, the middle, as in testing."""
    area: tuple[float, float] = (0.08, 1.0)
    """A crop's share of the image, drawn uniformly."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Its width over height, drawn uniformly in the logarithm."""
    flip_p: float = 0.5
    """Probability of a horizontal flip."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Interpolation of the random crop's resize."""
    test_crop_pct: float | None = None
    """The middle's share of the resized image's short side; None for what the backbone's description says."""
    test_interpolation: Literal["bilinear", "bicubic"] | None = None
    """Interpolation of the test images' resize; None for the backbone's own."""

    def __post_init__(self) -> None:
        check_types(self, "task.views.")
        pct = self.test_crop_pct
        check(pct is None or 0 < pct <= 1, "task.views.test_crop_pct", pct, "above 0 and at most 1, or None")
        _ = self.policy  # refuses what cannot be drawn

    @property
    def policy(self) -> Policy:
        """The random part: RandomResizedCrop and RandomHorizontalFlip, as torchvision calls them."""
        return Policy(
            area=self.area,
            ratio=self.ratio,
            interpolation=self.interpolation,
            flip_p=self.flip_p,
            jitter_p=0.0,
            grey_p=0.0,
            blur_p=0.0,
        )

    def to_test(self, backbone: nn.Module, size: int) -> CenterCrop:
        """The transform of test images."""
        crop = center_crop(backbone, size)
        return replace(
            crop,
            crop_pct=self.test_crop_pct or crop.crop_pct,
            interpolation=self.test_interpolation or crop.interpolation,
        )

    def to_train(self, backbone: nn.Module, size: int) -> Transform:
        """The transform of training images."""
        middle = self.to_test(backbone, size)
        if not self.augment:
            return middle
        return SingleView(MultiView((self.policy,), size, mean=middle.mean, std=middle.std))


def numbered(images: Images, transform: Transform, seed: int, classes: int, task: str) -> NumberedBatches:
    """Batches with the label of each image; ImageSourceError where there are none, or more than the head's classes."""
    return NumberedBatches(images, transform, seed, fitting_labels(images, classes, task))


def fitting_labels(images: Images, classes: int, task: str) -> np.ndarray:
    """The labels (N,), each of which a head of so many classes can name."""
    labels = require_labels(images, task)
    if len(images.classes) > classes:
        raise ImageSourceError(
            f"the data have {len(images.classes)} classes and the head tells {classes} apart: "
            f"set --task.classes to {len(images.classes)}, or to 0 for as many as the data have"
        )
    return labels
