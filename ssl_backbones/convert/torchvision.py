"""Backbones under torchvision's own names, as they are published ready to use.

Barlow Twins, VICReg, DINO, what LEWEL extracts, supervised networks; a linear classifier is left out.
"""

from ssl_backbones.convert.layout import Prefixed

TORCHVISION = Prefixed("torchvision", "", heads=("fc.weight", "fc.bias"))
