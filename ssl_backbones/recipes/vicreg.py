"""VICReg. Bardes et al., 2022. https://arxiv.org/abs/2105.04906"""

from __future__ import annotations

from ssl_backbones.methods.vicreg import VICRegConfig
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import OptimizerConfig, Promise, ScheduleConfig

VICREG = "VICReg (Bardes et al., 2022, https://arxiv.org/abs/2105.04906)"
OPEN = (
    "The cosine ends at 0 here, at a rate of 0.002 there; what LARS leaves plain and its trust ratio are BYOL's; "
    "initial weights follow this library."
)

VARIANCE = 12.5
"""The paper's 25 with the halved variance term of the authors' code: `VICRegConfig` weighs the paper's eq. 6."""


def vicreg(epochs: int, batch_size: int, lr: float, table: str, result: str) -> Recipe:
    """VICReg at a rate for 256 images."""
    return Recipe(
        name=f"resnet50_vicreg.in1k_{epochs}ep",
        model="resnet50_vicreg",
        method=VICRegConfig(variance=VARIANCE),
        epochs=epochs,
        batch_size=batch_size,
        optimizer=OptimizerConfig("lars", lr, weight_decay=1e-6, exclude_norm_and_bias=True, trust="update"),
        schedule=ScheduleConfig(warmup_epochs=10, per="step"),
        promise=Promise(VICREG, table, "ImageNet-1k", epochs, "not stated", None, result, OPEN),
    )


RECIPES = (
    vicreg(1000, 2048, 0.2, "Table 1", "73.2 top-1, linear (paper); here: not measured"),
    vicreg(100, 512, 0.3, "commands of the authors' code", "no figure recorded; here: not measured"),
)
