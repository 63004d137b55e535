"""Checkpoints of an online and a target network: the online one is kept.

LEWEL, Huang et al., 2022, and the BYOL of EMAN, Cai et al., 2021.
"""

from ssl_backbones.convert.layout import Prefixed

ONLINE_TARGET = Prefixed(
    "LEWEL and EMAN",
    "online_net.backbone.",
    heads=("online_net.neck.", "target_net.", "predictor.", "predictor_obj."),
)
