"""Checkpoints of momentum contrast: the query encoder is kept.

MoCo, He et al., 2019, and v2, Chen et al., 2020; the MoCo of EMAN, Cai et al., 2021.
"""

from ssl_backbones.convert.layout import Prefixed

MOCO = Prefixed(
    "MoCo", "encoder_q.", heads=("encoder_k.", "queue", "queue_ptr"), within=("fc.weight", "fc.bias", "fc.0.", "fc.2.")
)
