"""Each method in minutes of one core: ResNet-8 on Imagenette's images at 32 px. No paper; the settings are our own.

Epochs were chosen by trial: a method whose steps cost more sees the images less often.
"""

from __future__ import annotations

from dataclasses import replace

from ssl_backbones.methods.deep_infomax import DeepInfoMaxConfig
from ssl_backbones.methods.deepcluster import DeepClusterConfig
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.methods.patch_relnet import PatchRelNetConfig
from ssl_backbones.methods.patch_rotnet import PatchRotNetConfig
from ssl_backbones.methods.rotnet import RotNetConfig
from ssl_backbones.methods.supervised import SupervisedConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import Monitoring, OptimizerConfig, ScheduleConfig
from ssl_backbones.recipes.small_images import CONTRASTIVE, HEADS, PREDICTIVE, byol, flags, lewel_b, lewel_m, moco_v2

ADAM = OptimizerConfig("adam", 1e-3, lr_rule="absolute", weight_decay=0.0)
LABELLED = OptimizerConfig("sgd", 0.1, lr_rule="absolute", weight_decay=5e-4)

MINED = (
    "Pairs by this table's MoCo v2, with the labels of the images: "
    "ssl-backbones mine-pairs runs/resnet8_moco_v2.imagenette32_26ep --layer layer3."
)


def row(
    method: MethodConfig,
    epochs: int,
    batch_size: int,
    optimizer: OptimizerConfig,
    end: str = "",
    schedule: ScheduleConfig = ScheduleConfig(warmup_epochs=1, per="step"),  # noqa: B008 - frozen
    not_stated: str = "",
) -> Recipe:
    """A method's row of the table."""
    return named(
        "resnet8",
        method,
        f"imagenette32_{epochs}ep{end}",
        size=32,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        schedule=schedule,
        monitoring=Monitoring(knn_every=0),
        paper="Imagenette at equal cost (no paper)",
        table="resnet8 at 32 px",
        data="Imagenette",
        hardware="1 CPU core",
        hours=0.1,
        result="measured, seed 0, beside all others: benchmarks/results/imagenette_table.json",
        not_stated=not_stated,
    )


CONSTANT = ScheduleConfig("constant")
PATCHES = tuple(
    row(config(ratio=share / 100), 8, 64, ADAM, end=f"_r{share}", schedule=CONSTANT)
    for config in (PatchRotNetConfig, PatchRelNetConfig)
    for share in (30, 40, 50)
)
RECIPES = (
    row(RotNetConfig(), 16, 64, ADAM, schedule=CONSTANT),
    *PATCHES,
    row(DeepInfoMaxConfig(), 6, 64, replace(ADAM, weight_decay=1e-4), schedule=CONSTANT),
    row(DeepClusterConfig(), 50, 64, ADAM, schedule=CONSTANT),
    row(moco_v2(HEADS["resnet8"]), 26, 128, CONTRASTIVE),
    row(byol(HEADS["resnet8"]), 22, 64, PREDICTIVE),
    row(replace(lewel_m(HEADS["resnet8"]), groups=8), 20, 128, CONTRASTIVE),
    row(lewel_b(HEADS["resnet8"]), 15, 64, PREDICTIVE),
    row(flags(HEADS["resnet8"], local_branch=False), 18, 128, CONTRASTIVE, end="_global", not_stated=MINED),
    row(flags(HEADS["resnet8"], local_branch=True), 13, 128, CONTRASTIVE, end="_global_local", not_stated=MINED),
    row(SupervisedConfig(), 56, 128, LABELLED),
)
