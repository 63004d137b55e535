"""Backbones as folders that plain timm loads, and as repositories of the Hugging Face Hub."""

from ssl_backbones.hub.export import BackboneError, save_backbone, save_classifier

__all__ = ["BackboneError", "save_backbone", "save_classifier"]
