"""The weights that ship with the package: ResNet-8 for 30, 60 or 200 epochs. No paper; the settings are our own."""

from __future__ import annotations

from dataclasses import replace

from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.methods.patch_relnet import PatchRelNetConfig
from ssl_backbones.methods.patch_rotnet import PatchRotNetConfig
from ssl_backbones.recipes.imagenette import ADAM
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import Monitoring, OptimizerConfig, ScheduleConfig
from ssl_backbones.recipes.small_images import CONTRASTIVE, HEADS, PREDICTIVE, byol, flags, lewel_b, lewel_m, moco_v2

IMAGENETTE, CLOTHING = "imagenette32", "clothing10_32"
DATA = {
    IMAGENETTE: "Imagenette",
    CLOTHING: "Clothing dataset (small), training photos",
}


def shipped(
    method: MethodConfig,
    epochs: int,
    batch_size: int,
    optimizer: OptimizerConfig,
    data: str = IMAGENETTE,
    not_stated: str = "",
) -> Recipe:
    """A method's run, long enough for a curve that is flat at its end."""
    tag = f"{data}_{epochs}ep"
    return named(
        "resnet8",
        method,
        tag,
        size=32,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        schedule=ScheduleConfig(warmup_epochs=1, per="step"),
        monitoring=Monitoring(knn_every=max(1, epochs // 15)),
        paper="Weights that ship (no paper)",
        table="resnet8 at 32 px",
        data=DATA[data],
        hardware="1 CPU core",
        result=f"our own, in model_cards/resnet8_{method.name}.{tag}.md",
        not_stated=not_stated,
    )


RECIPES = (
    shipped(moco_v2(HEADS["resnet8"]), 60, 128, CONTRASTIVE),
    shipped(byol(HEADS["resnet8"]), 60, 64, PREDICTIVE),
    shipped(replace(lewel_m(HEADS["resnet8"]), groups=8), 60, 128, CONTRASTIVE),
    shipped(lewel_b(HEADS["resnet8"]), 60, 64, PREDICTIVE),
    shipped(
        flags(HEADS["resnet8"], local_branch=False),
        60,
        128,
        CONTRASTIVE,
        not_stated="Pairs by the MoCo v2 of this family, with the labels of the images: "
        "ssl-backbones mine-pairs runs/resnet8_moco_v2.imagenette32_60ep --layer layer3.",
    ),
    shipped(PatchRotNetConfig(ratio=0.4), 30, 64, ADAM),
    shipped(PatchRelNetConfig(ratio=0.4), 30, 64, ADAM),
    shipped(
        replace(moco_v2(HEADS["resnet8"]), queue_size=1024),
        200,
        64,
        CONTRASTIVE,
        data=CLOTHING,
        not_stated="The queue is shorter than the images are many, or it would hold some of them twice.",
    ),
)
