"""Small networks on small images, as in small_images, under joint-embedding methods without a target network."""

from __future__ import annotations

from typing import Any

from ssl_backbones.methods.aligned import AlignedConfig
from ssl_backbones.methods.barlow_twins import BarlowTwinsConfig
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.methods.simclr import SimCLRConfig
from ssl_backbones.methods.simsiam import SimSiamConfig
from ssl_backbones.methods.vicreg import VICRegConfig
from ssl_backbones.models.objective import CosineObjective, NTXentObjective
from ssl_backbones.recipes.settings import OptimizerConfig
from ssl_backbones.recipes.small_images import CONTRASTIVE, HEADS, small
from ssl_backbones.recipes.vicreg import VARIANCE
from ssl_backbones.views import LEWEL_B_SMALL_VIEWS, MOCO_V2_SMALL_VIEWS, SIMCLR_SMALL_VIEWS

SIAMESE = OptimizerConfig("sgd", 0.12, weight_decay=5e-4, constant_part="predictor")
REDUNDANCY = OptimizerConfig("adam", 2e-3, weight_decay=1e-6)


def methods(heads: dict[str, Any]) -> dict[str, tuple[MethodConfig, int, OptimizerConfig]]:
    """By method and, after a full stop, by what else the tag says: the configuration, the batch and the optimiser."""
    hidden, width = heads["hidden_dim"], heads["projection_dim"]
    wide = {"hidden_dim": hidden, "projection_dim": hidden}
    aligned = {**heads, "aligned_dim": width, "views": MOCO_V2_SMALL_VIEWS}
    siamese = SimSiamConfig(
        hidden, hidden, num_layers=2, predictor_dim=hidden // 4, views=MOCO_V2_SMALL_VIEWS
    )  # two layers for small images, as in the paper's appendix D
    return {
        "simclr": (SimCLRConfig(**heads, temperature=0.2, views=SIMCLR_SMALL_VIEWS), 128, CONTRASTIVE),
        "simsiam": (siamese, 64, SIAMESE),
        "barlow_twins": (BarlowTwinsConfig(**wide, views=LEWEL_B_SMALL_VIEWS), 128, REDUNDANCY),
        "vicreg": (VICRegConfig(**wide, variance=VARIANCE, views=LEWEL_B_SMALL_VIEWS), 128, REDUNDANCY),
        "aligned.simclr": (
            AlignedConfig(**aligned, groups=8, objective=NTXentObjective(temperature=0.2)),
            64,
            CONTRASTIVE,
        ),
        "aligned.simsiam": (AlignedConfig(**aligned, objective=CosineObjective(width // 4)), 64, CONTRASTIVE),
    }


RECIPES = tuple(small(arch, name, *chosen) for arch, heads in HEADS.items() for name, chosen in methods(heads).items())
