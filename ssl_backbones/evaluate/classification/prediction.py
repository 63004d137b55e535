"""A classifier by name, and its likeliest class of each image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import ssl_backbones
from ssl_backbones.catalogue.configs import class_names
from ssl_backbones.checks import brief
from ssl_backbones.evaluate.model import EvaluatedModel
from ssl_backbones.models.backbone import center_crop, weights_sha256
from ssl_backbones.refusal import Refusal
from ssl_backbones.runs.run_folder import RunFolder


class ClassifierError(Refusal, ValueError):
    """A model that tells no classes apart."""


class Likeliest(nn.Module):
    """A classifier's likeliest class, and its probability."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """The number of a class and its probability (B, 2) for images (B, 3, H, W)."""
        probability, number = self.classifier(images).float().softmax(dim=1).max(dim=1)
        return torch.stack([number.float(), probability], dim=1)


def open_classifier(
    model: str | os.PathLike[str], device: torch.device, *, size: int | None = None, channels: int = 3
) -> tuple[EvaluatedModel, dict[int, str]]:
    """The classifier of a name of timm's, `hf-hub:org/name` or a folder, and the names of its classes by their numbers.

    A run's folder stands for its folder `classifier`. Images are prepared as the classifier's description says, at
    `size` where that is given. Raises ClassifierError for a network without classes, and whatever
    `ssl_backbones.create_model` raises.
    """
    left = RunFolder(Path(model)).classifier
    model = os.fspath(left if (left / "config.json").is_file() else model)
    network: Any = ssl_backbones.create_model(model, pretrained=True).eval().to(device)
    if not network.num_classes:
        raise ClassifierError(
            f"{brief(repr(model))} tells no classes apart: name the folder `classifier` that `evaluate finetune "
            "--task.hidden 0` or `evaluate linear` leaves in its own, or a classifier of timm's"
        )
    crop, digest = center_crop(network, size, channels), weights_sha256(network)
    opened = EvaluatedModel(model, Likeliest(network).eval(), None, device, crop, digest)
    return opened, class_names(network.pretrained_cfg)
