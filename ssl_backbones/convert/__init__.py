"""Other people's checkpoints, read without running anything in them, whole or not at all."""

from ssl_backbones.convert.conversion import Converted, convert
from ssl_backbones.convert.layout import ConversionError, Layout
from ssl_backbones.convert.layouts import LAYOUTS
from ssl_backbones.convert.reading import read_checkpoint

__all__ = ["LAYOUTS", "ConversionError", "Converted", "Layout", "convert", "read_checkpoint"]
