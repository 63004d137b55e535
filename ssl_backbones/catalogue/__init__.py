"""All that can be had or trained, by name: models made, listed and described."""

from ssl_backbones.catalogue import ssl_resnet as ssl_resnet
from ssl_backbones.catalogue.description import Description
from ssl_backbones.catalogue.lookup import create_model, describe, list_models

__all__ = ["Description", "create_model", "describe", "list_models"]
