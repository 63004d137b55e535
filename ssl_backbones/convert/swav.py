"""Checkpoints of SwAV, DeepCluster-v2 and SeLa-v2: bare names, with a projector and prototypes. Caron et al., 2020."""

from ssl_backbones.convert.layout import Prefixed

SWAV = Prefixed("SwAV", "", heads=("projection_head.", "prototypes."))
