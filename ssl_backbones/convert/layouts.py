"""Every layout that is known; what a file holds decides which it is."""

from ssl_backbones.convert.byol import ONLINE_TARGET
from ssl_backbones.convert.haiku import HAIKU
from ssl_backbones.convert.joint_embedding import JOINT_EMBEDDING
from ssl_backbones.convert.layout import Layout
from ssl_backbones.convert.moco import MOCO
from ssl_backbones.convert.simsiam import SIMSIAM
from ssl_backbones.convert.supcon import SUPCON
from ssl_backbones.convert.swav import SWAV
from ssl_backbones.convert.torchvision import TORCHVISION
from ssl_backbones.convert.vissl import VISSL

LAYOUTS: tuple[Layout, ...] = (
    ONLINE_TARGET,
    MOCO,
    SIMSIAM,
    SUPCON,
    JOINT_EMBEDDING,
    VISSL,
    TORCHVISION,
    SWAV,
    HAIKU,
)
"""Where several fit alike, as for a bare backbone, the first names it; what comes out is the same."""
