"""Every method, each a final class behind one protocol: `SomeMethod(backbone, SomeMethodConfig(...))`."""

from ssl_backbones.methods.aligned import Aligned, AlignedConfig
from ssl_backbones.methods.barlow_twins import BarlowTwins, BarlowTwinsConfig
from ssl_backbones.methods.byol import BYOL, BYOLConfig
from ssl_backbones.methods.deep_infomax import DeepInfoMax, DeepInfoMaxConfig
from ssl_backbones.methods.deepcluster import DeepCluster, DeepClusterConfig
from ssl_backbones.methods.flags import Flags, FlagsConfig
from ssl_backbones.methods.from_run import RunError, method_from_run
from ssl_backbones.methods.lewel_b import LewelB, LewelBConfig
from ssl_backbones.methods.lewel_m import LewelM, LewelMConfig
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.methods.moco_v2 import MoCoV2, MoCoV2Config
from ssl_backbones.methods.objective import (
    BarlowTwinsObjective,
    CosineObjective,
    NTXentObjective,
    Objective,
    VICRegObjective,
)
from ssl_backbones.methods.patch_relnet import PatchRelNet, PatchRelNetConfig
from ssl_backbones.methods.patch_rotnet import PatchRotNet, PatchRotNetConfig
from ssl_backbones.methods.rotnet import RotNet, RotNetConfig
from ssl_backbones.methods.simclr import SimCLR, SimCLRConfig
from ssl_backbones.methods.simsiam import SimSiam, SimSiamConfig
from ssl_backbones.methods.supervised import Supervised, SupervisedConfig
from ssl_backbones.methods.vicreg import VICReg, VICRegConfig

__all__ = [
    "BYOL",
    "Aligned",
    "AlignedConfig",
    "BYOLConfig",
    "BarlowTwins",
    "BarlowTwinsConfig",
    "BarlowTwinsObjective",
    "CosineObjective",
    "DeepCluster",
    "DeepClusterConfig",
    "DeepInfoMax",
    "DeepInfoMaxConfig",
    "Flags",
    "FlagsConfig",
    "LewelB",
    "LewelBConfig",
    "LewelM",
    "LewelMConfig",
    "Method",
    "MethodConfig",
    "MoCoV2",
    "MoCoV2Config",
    "NTXentObjective",
    "Objective",
    "PatchRelNet",
    "PatchRelNetConfig",
    "PatchRotNet",
    "PatchRotNetConfig",
    "RotNet",
    "RotNetConfig",
    "RunError",
    "SimCLR",
    "SimCLRConfig",
    "SimSiam",
    "SimSiamConfig",
    "Supervised",
    "SupervisedConfig",
    "VICReg",
    "VICRegConfig",
    "VICRegObjective",
    "method_from_run",
]
