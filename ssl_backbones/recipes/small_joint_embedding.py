"""Small networks on small images, as in small_images, under joint-embedding methods without a target network."""

from __future__ import annotations

from ssl_backbones.methods.aligned import AlignedConfig
from ssl_backbones.methods.barlow_twins import BarlowTwinsConfig
from ssl_backbones.methods.simclr import SimCLRConfig
from ssl_backbones.methods.simsiam import SimSiamConfig
from ssl_backbones.methods.vicreg import VICRegConfig
from ssl_backbones.models.objective import CosineObjective, NTXentObjective
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import OptimizerConfig
from ssl_backbones.recipes.small_images import CONTRASTIVE, HEADS, small
from ssl_backbones.recipes.vicreg import VARIANCE
from ssl_backbones.views import LEWEL_B_SMALL_VIEWS, MOCO_V2_SMALL_VIEWS, SIMCLR_SMALL_VIEWS

SIAMESE = OptimizerConfig("sgd", 0.12, weight_decay=5e-4, constant_part="predictor")
REDUNDANCY = OptimizerConfig("adam", 2e-3, weight_decay=1e-6)


def of_network(arch: str) -> tuple[Recipe, ...]:
    """The recipes of a network."""
    hidden, width = HEADS[arch]["hidden_dim"], HEADS[arch]["projection_dim"]
    wide = {"hidden_dim": hidden, "projection_dim": hidden}
    aligned = {**HEADS[arch], "aligned_dim": width, "views": MOCO_V2_SMALL_VIEWS}
    simclr = SimCLRConfig(**HEADS[arch], temperature=0.2, views=SIMCLR_SMALL_VIEWS)
    siamese = SimSiamConfig(
        hidden, hidden, num_layers=2, predictor_dim=hidden // 4, views=MOCO_V2_SMALL_VIEWS
    )  # two layers for small images, as in the paper's appendix D
    over_simclr = AlignedConfig(**aligned, groups=8, objective=NTXentObjective(temperature=0.2))
    over_simsiam = AlignedConfig(**aligned, objective=CosineObjective(width // 4))
    return (
        small(arch, simclr, 128, CONTRASTIVE),
        small(arch, siamese, 64, SIAMESE),
        small(arch, BarlowTwinsConfig(**wide, views=LEWEL_B_SMALL_VIEWS), 128, REDUNDANCY),
        small(arch, VICRegConfig(**wide, variance=VARIANCE, views=LEWEL_B_SMALL_VIEWS), 128, REDUNDANCY),
        small(arch, over_simclr, 64, CONTRASTIVE, end="_simclr"),
        small(arch, over_simsiam, 64, CONTRASTIVE, end="_simsiam"),
    )


RECIPES = tuple(recipe for arch in HEADS for recipe in of_network(arch))
