"""Distillation at a size for tests."""

from __future__ import annotations

from typing import Any

import torch
from small_methods import SMALL

from ssl_backbones import create_model
from ssl_backbones.methods.distilled import Distilled, DistilledConfig


def distilling(**choices: Any) -> Distilled:
    """The method around a new ResNet-8 in double precision, its teacher the tests' ResNet-8."""
    torch.manual_seed(0)
    config = DistilledConfig(**{"teacher": SMALL["teacher"], "hidden_dim": 32, **choices})
    return Distilled(create_model("resnet8", num_classes=0), config).double()
