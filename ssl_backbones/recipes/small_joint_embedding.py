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
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import Monitoring, OptimizerConfig, Promise, ScheduleConfig
from ssl_backbones.recipes.small_images import CONTRASTIVE, EPOCHS, HEADS
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


def small(arch: str, method: str, config: MethodConfig, batch_size: int, optimizer: OptimizerConfig) -> Recipe:
    """A network and a method on Imagenette's images at 64 px."""
    suffix, _, kind = method.partition(".")
    return Recipe(
        name=f"{arch}_{suffix}.imagenette96_{EPOCHS}ep{'_' if kind else ''}{kind}",
        model=f"{arch}_{suffix}",
        method=config,
        size=64,
        epochs=EPOCHS,
        batch_size=batch_size,
        optimizer=optimizer,
        schedule=ScheduleConfig(warmup_epochs=1, per="step"),
        monitoring=Monitoring(knn_every=5),
        promise=Promise(
            paper="Small images (no paper)",
            table=f"{arch} at 64 px",
            data="Imagenette",
            epochs=EPOCHS,
            hardware="2 CPU cores",
            hours=None,
            result="not measured",
        ),
    )


RECIPES = tuple(small(arch, name, *chosen) for arch, heads in HEADS.items() for name, chosen in methods(heads).items())
