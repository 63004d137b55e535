"""Self-supervised ResNet backbones for timm, and the means to make them."""

from ssl_backbones import models as models
from ssl_backbones.registry.registry import (
    Description,
    PretrainedWeightsError,
    UnknownModelError,
    create_model,
    describe,
    list_models,
)

__all__ = [
    "Description",
    "PretrainedWeightsError",
    "UnknownModelError",
    "create_model",
    "describe",
    "list_models",
    "models",
]

__version__ = "0.1.0.dev0"
