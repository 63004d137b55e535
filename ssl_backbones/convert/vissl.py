"""Backbones of VISSL: RotNet, Jigsaw, NPID, ClusterFit, PIRL. Goyal et al., 2021."""

from ssl_backbones.convert.layout import Prefixed

VISSL = Prefixed("VISSL", "_feature_blocks.", within=("fc.weight", "fc.bias"))
