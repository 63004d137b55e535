"""LEWEL's aligned branch over NNCLR on small images. No paper has a row of it; the settings are NNCLR's here."""

from __future__ import annotations

from ssl_backbones.methods.lewel_nnclr import LewelNNCLRConfig
from ssl_backbones.recipes.nnclr import widths
from ssl_backbones.recipes.small_images import CONTRASTIVE, HEADS, SETS, small
from ssl_backbones.views import SIMCLR_SMALL_VIEWS


def shorter(arch: str) -> LewelNNCLRConfig:
    """Queues of a fraction of the images, for views of 64 px."""
    heads = HEADS[arch]
    return LewelNNCLRConfig(
        **widths(heads),
        aligned_dim=heads["projection_dim"],
        groups=8,
        queue_size=2048,
        aligned_queue_size=1024,
        views=SIMCLR_SMALL_VIEWS,
    )


RECIPES = tuple(small(arch, shorter(arch), 128, CONTRASTIVE, images) for arch in HEADS for images in SETS)
