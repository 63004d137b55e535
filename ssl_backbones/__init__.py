"""Self-supervised ResNet backbones for timm, and the means to make them."""

from ssl_backbones import cores as cores  # before all that imports torch
from ssl_backbones import models as models
from ssl_backbones.catalogue import Description, create_model, describe, list_models
from ssl_backbones.registry.errors import PretrainedWeightsError, UnknownModelError
from ssl_backbones.version import __version__ as __version__

__all__ = [
    "Description",
    "PretrainedWeightsError",
    "UnknownModelError",
    "create_model",
    "describe",
    "list_models",
    "models",
]
