"""Small networks on small images: what two CPU cores can train. No paper; the settings are this project's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ssl_backbones.methods.byol import BYOLConfig
from ssl_backbones.methods.flags import FlagsConfig
from ssl_backbones.methods.lewel_b import LewelBConfig
from ssl_backbones.methods.lewel_m import LewelMConfig
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.methods.moco_v2 import MoCoV2Config
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import Monitoring, OptimizerConfig, ScheduleConfig
from ssl_backbones.views import LEWEL_B_SMALL_VIEWS, MOCO_V2_SMALL_VIEWS

HEADS: dict[str, dict[str, Any]] = {
    "resnet8": {"hidden_dim": 512, "projection_dim": 128},
    "resnet18": {"hidden_dim": 1024, "projection_dim": 128},
}
EPOCHS = 100
SETS = {"imagenette96": "Imagenette", "goods128": "goods_128"}
STEPS = {"imagenette96": 9469 // 128, "goods128": 7768 // 128}
"""Steps of an epoch in batches of 128."""


def byol(heads: dict[str, Any]) -> BYOLConfig:
    """BYOL for a short run: a target that follows more closely, and LEWEL_B's views and initialisation."""
    return BYOLConfig(**heads, predictor_init="kaiming", target_momentum=0.95, views=LEWEL_B_SMALL_VIEWS)


def moco_v2(heads: dict[str, Any]) -> MoCoV2Config:
    """MoCo v2 with a queue smaller than the data."""
    return MoCoV2Config(**heads, queue_size=4096, momentum=0.99, views=MOCO_V2_SMALL_VIEWS)


def lewel_b(heads: dict[str, Any]) -> LewelBConfig:
    """LEWEL_B, with all that BYOL has here."""
    return LewelBConfig(**heads, aligned_dim=heads["projection_dim"], target_momentum=0.95, views=LEWEL_B_SMALL_VIEWS)


def lewel_m(heads: dict[str, Any]) -> LewelMConfig:
    """LEWEL_M with MoCo v2's queue here."""
    return LewelMConfig(
        **heads, aligned_dim=heads["projection_dim"], queue_size=4096, momentum=0.99, views=MOCO_V2_SMALL_VIEWS
    )


def flags(heads: dict[str, Any], local_branch: bool) -> FlagsConfig:
    """FLAGS with MoCo v2's queue here."""
    return FlagsConfig(**heads, local_branch=local_branch, queue_size=4096, momentum=0.99, views=MOCO_V2_SMALL_VIEWS)


PREDICTIVE = OptimizerConfig("sgd", 0.6, weight_decay=1e-4, exclude_norm_and_bias=True)
CONTRASTIVE = OptimizerConfig("sgd", 0.12, weight_decay=5e-4, exclude_norm_and_bias=True)
OPTIMIZER = {"byol": PREDICTIVE, "lewel_b": PREDICTIVE, "moco_v2": CONTRASTIVE, "lewel_m": CONTRASTIVE}
BATCH = {"byol": 64, "lewel_b": 64, "moco_v2": 128, "lewel_m": 128}
"""Methods without negatives want many steps rather than large ones."""
METHODS: dict[str, Callable[[dict[str, Any]], MethodConfig]] = {
    "byol": byol,
    "moco_v2": moco_v2,
    "lewel_b": lewel_b,
    "lewel_m": lewel_m,
}


def small(
    arch: str,
    method: MethodConfig,
    batch_size: int,
    optimizer: OptimizerConfig,
    images: str = "imagenette96",
    end: str = "",
    not_stated: str = "",
) -> Recipe:
    """A network and a method on small images at 64 px; the tag ends in `end`."""
    return named(
        arch,
        method,
        f"{images}_{EPOCHS}ep{end}",
        size=64,
        epochs=EPOCHS,
        batch_size=batch_size,
        optimizer=optimizer,
        schedule=ScheduleConfig(warmup_epochs=1, per="step"),
        monitoring=Monitoring(knn_every=5),
        paper="Small images (no paper)",
        table=f"{arch} at 64 px",
        data=SETS[images],
        hardware="2 CPU cores",
        result="not measured",
        not_stated=not_stated,
    )


RECIPES = tuple(
    small(arch, METHODS[name](heads), BATCH[name], OPTIMIZER[name]) for arch, heads in HEADS.items() for name in METHODS
)
