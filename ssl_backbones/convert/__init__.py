"""Other people's checkpoints, read without running anything in them, whole or not at all."""

from ssl_backbones.convert.conversion import Converted, convert
from ssl_backbones.convert.reading import ConversionError, read_checkpoint

__all__ = ["ConversionError", "Converted", "convert", "read_checkpoint"]
