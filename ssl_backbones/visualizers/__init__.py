"""What a network looks at, drawn with Pillow alone."""

from ssl_backbones.visualizers.alignment import HasAlignmentMaps, alignment_figure, alignment_maps, most_distinct
from ssl_backbones.visualizers.colours import DAWN, palette
from ssl_backbones.visualizers.grid import grid
from ssl_backbones.visualizers.overlay import overlay, stretched

__all__ = [
    "DAWN",
    "HasAlignmentMaps",
    "alignment_figure",
    "alignment_maps",
    "grid",
    "most_distinct",
    "overlay",
    "palette",
    "stretched",
]
