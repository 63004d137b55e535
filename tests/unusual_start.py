"""A start that nothing here begins with: unusual weights, and images that are prepared in an unusual way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from ssl_backbones.hub.export import save_backbone

SHIPPED = "resnet8_byol.imagenette32_60ep"
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def network(seed: int, **kwargs: Any) -> nn.Module:
    """A ResNet-8 with weights and statistics that nothing here begins with."""
    torch.manual_seed(seed)
    model = timm.create_model("resnet8", **{"num_classes": 0, **kwargs})
    for value in model.state_dict().values():
        value.copy_(torch.rand(value.shape) if value.is_floating_point() else torch.tensor(7))
    return model


def unusual_folder(path: Path) -> Path:
    """A backbone in a folder, whose images are prepared in an unusual way."""
    how: dict[str, Any] = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "crop_pct": 0.75}
    return save_backbone(network(1), path, "resnet8", **how, license="cc-by-nc-4.0", input_size=(3, 32, 32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unusual_folder(tmp_path_factory.mktemp("starts") / "mine")
