"""LEWEL's aligned branch over SwAV on small images. No paper has a row of it; the settings are SwAV's here."""

from __future__ import annotations

from dataclasses import replace

from ssl_backbones.methods.lewel_swav import LewelSwAVConfig
from ssl_backbones.recipes.small_images import CONTRASTIVE, HEADS, SETS, STEPS, small
from ssl_backbones.recipes.swav import SHARP
from ssl_backbones.registry.backbones import SMALL
from ssl_backbones.views import SWAV_CROP, SWAV_VIEWS


def shorter(arch: str, images: str) -> LewelSwAVConfig:
    """Views of 64 px, without blur; small crops only where they still have a map; as many prototypes for each loss."""
    view, heads = replace(SWAV_VIEWS[0], blur_p=0.0), HEADS[arch]
    return LewelSwAVConfig(
        **heads,
        aligned_dim=heads["projection_dim"],
        groups=8,
        epsilon=SHARP,
        prototypes=150,
        aligned_prototypes=150,
        frozen_steps=STEPS[images],
        views=(view, view),
        crop=replace(SWAV_CROP, blur_p=0.0, area=(0.05, 0.3), size_share=0.5),
        crops=4 if arch in SMALL else 0,
    )


RECIPES = tuple(small(arch, shorter(arch, images), 128, CONTRASTIVE, images) for arch in HEADS for images in SETS)
