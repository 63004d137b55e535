"""Augmented views: one policy, one stream of counted randomness, two engines."""

from ssl_backbones.views.center_crop import CenterCrop
from ssl_backbones.views.multi_view import MultiView
from ssl_backbones.views.normalise import IMAGENET_MEAN, IMAGENET_STD, normalise
from ssl_backbones.views.policy import Parameters, Policy
from ssl_backbones.views.presets import (
    BYOL_SMALL_VIEWS,
    BYOL_VIEWS,
    LEWEL_B_SMALL_VIEWS,
    LEWEL_B_VIEWS,
    MOCO_V2_SMALL_VIEWS,
    MOCO_V2_VIEWS,
)
from ssl_backbones.views.randomness import permutation, seed_of, uniform
from ssl_backbones.views.transform import Transform

__all__ = [
    "BYOL_SMALL_VIEWS",
    "BYOL_VIEWS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "LEWEL_B_SMALL_VIEWS",
    "LEWEL_B_VIEWS",
    "MOCO_V2_SMALL_VIEWS",
    "MOCO_V2_VIEWS",
    "CenterCrop",
    "MultiView",
    "Parameters",
    "Policy",
    "Transform",
    "normalise",
    "permutation",
    "seed_of",
    "uniform",
]
