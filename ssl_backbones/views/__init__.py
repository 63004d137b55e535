"""Augmented views: one policy, one stream of counted randomness, three engines."""

from ssl_backbones.views.center_crop import CenterCrop
from ssl_backbones.views.crop_flip import CropFlip
from ssl_backbones.views.engine import Engine, check_engine, has_opencv, using_engine
from ssl_backbones.views.geometry import Geometry, Located, LocatedViews
from ssl_backbones.views.multi_view import MultiView
from ssl_backbones.views.normalise import IMAGENET_MEAN, IMAGENET_STD, normalise
from ssl_backbones.views.patch_transforms import PatchViews, Positions, Rotations
from ssl_backbones.views.patches import check_ratio, patch_views, rotations
from ssl_backbones.views.policy import Parameters, Policy
from ssl_backbones.views.presets import (
    BYOL_SMALL_VIEWS,
    BYOL_VIEWS,
    DINO_CROP,
    DINO_VIEWS,
    DISTILLED_KEPT_VIEW,
    DISTILLED_VIEW,
    INSTDISC_VIEW,
    LEWEL_B_SMALL_VIEWS,
    LEWEL_B_VIEWS,
    MOCO_V2_SMALL_VIEWS,
    MOCO_V2_VIEWS,
    PIXPRO_VIEWS,
    SIMCLR_SMALL_VIEWS,
    SIMCLR_VIEWS,
    SUPCON_VIEWS,
    SUPERVISED_VIEW,
    SWAV_CROP,
    SWAV_VIEWS,
    VICREG_VIEWS,
)
from ssl_backbones.views.randomness import permutation, seed_of, uniform
from ssl_backbones.views.single_view import SingleView
from ssl_backbones.views.transform import Transform

__all__ = [
    "BYOL_SMALL_VIEWS",
    "BYOL_VIEWS",
    "DINO_CROP",
    "DINO_VIEWS",
    "DISTILLED_KEPT_VIEW",
    "DISTILLED_VIEW",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "INSTDISC_VIEW",
    "LEWEL_B_SMALL_VIEWS",
    "LEWEL_B_VIEWS",
    "MOCO_V2_SMALL_VIEWS",
    "MOCO_V2_VIEWS",
    "PIXPRO_VIEWS",
    "SIMCLR_SMALL_VIEWS",
    "SIMCLR_VIEWS",
    "SUPCON_VIEWS",
    "SUPERVISED_VIEW",
    "SWAV_CROP",
    "SWAV_VIEWS",
    "VICREG_VIEWS",
    "CenterCrop",
    "CropFlip",
    "Engine",
    "Geometry",
    "Located",
    "LocatedViews",
    "MultiView",
    "Parameters",
    "PatchViews",
    "Policy",
    "Positions",
    "Rotations",
    "SingleView",
    "Transform",
    "check_engine",
    "check_ratio",
    "has_opencv",
    "normalise",
    "patch_views",
    "permutation",
    "rotations",
    "seed_of",
    "uniform",
    "using_engine",
]
