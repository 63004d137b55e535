"""Optimisers that PyTorch lacks."""

from ssl_backbones.optimizers.lars import LARS

__all__ = ["LARS"]
