"""Every exported method at a size for tests: found by being exported, shrunk by the names of its fields."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from ssl_backbones import create_model, methods
from ssl_backbones.methods import Method, MethodConfig

CONFIGS: list[type[MethodConfig]] = [
    value
    for value in (getattr(methods, name) for name in methods.__all__)
    if isinstance(value, type) and issubclass(value, MethodConfig) and value is not MethodConfig
]
SMALL: dict[str, Any] = {
    "hidden_dim": 32,
    "projection_dim": 16,
    "aligned_dim": 16,
    "groups": 4,
    "queue_size": 24,
    "bn_splits": 2,
}


def small_config(kind: type[MethodConfig], **choices: Any) -> MethodConfig:
    """The configuration with its sizes shrunk, and with those of the choices that it knows."""
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in (SMALL | choices).items() if name in known})


def small_method(kind: type[MethodConfig], seed: int = 0, **choices: Any) -> Method:
    """The method around a ResNet-8, in training mode; the same for the same seed."""
    torch.manual_seed(seed)
    backbone: nn.Module = create_model("resnet8", num_classes=0)
    return small_config(kind, **choices).build(backbone).train()


def views(count: int = 8, size: int = 16, dtype: torch.dtype = torch.float32, seed: int = 1) -> list[Tensor]:
    """Two views (B, 3, S, S) of images that differ, the second a noisy copy of the first."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)
    second = first + 0.3 * torch.randn(first.shape, generator=generator, dtype=torch.float64)
    return [first.to(dtype), second.to(dtype)]
