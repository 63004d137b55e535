"""Every method, each a final class behind one protocol: `SomeMethod(backbone, SomeMethodConfig(...))`."""

from ssl_backbones.methods.byol import BYOL, BYOLConfig
from ssl_backbones.methods.lewel_b import LewelB, LewelBConfig
from ssl_backbones.methods.lewel_m import LewelM, LewelMConfig
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.methods.moco_v2 import MoCoV2, MoCoV2Config

__all__ = [
    "BYOL",
    "BYOLConfig",
    "LewelB",
    "LewelBConfig",
    "LewelM",
    "LewelMConfig",
    "Method",
    "MethodConfig",
    "MoCoV2",
    "MoCoV2Config",
]
