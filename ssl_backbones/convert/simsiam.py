"""Checkpoints of SimSiam: an encoder whose projector took the classifier's place. Chen and He, 2021."""

from ssl_backbones.convert.layout import Prefixed

SIMSIAM = Prefixed("SimSiam", "encoder.", heads=("predictor.",), within=("fc.",))
