"""VICReg. Bardes et al., 2022. https://arxiv.org/abs/2105.04906"""

from __future__ import annotations

from ssl_backbones.methods.vicreg import VICRegConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import LR_AFTER, OptimizerConfig, ScheduleConfig
from ssl_backbones.views import BYOL_VIEWS

VICREG = "VICReg (Bardes et al., 2022, https://arxiv.org/abs/2105.04906)"
OPEN = (
    "The views of 1000 epochs are the paper's, those of 100 the authors' code's, which are BYOL's. What LARS leaves "
    f"plain and its trust ratio are BYOL's; initial weights follow this library. {LR_AFTER}"
)

VARIANCE = 12.5
"""The paper's 25 with the halved variance term of the authors' code: `VICRegConfig` weighs the paper's eq. 6."""
PAPER = VICRegConfig(variance=VARIANCE)
CODE = VICRegConfig(variance=VARIANCE, views=BYOL_VIEWS)


def vicreg(
    method: VICRegConfig, epochs: int, batch_size: int, lr: float, end_share: float, table: str, result: str
) -> Recipe:
    """VICReg at a rate for 256 images, whose cosine ends at a share of it."""
    return named(
        "resnet50",
        method,
        f"in1k_{epochs}ep",
        epochs=epochs,
        batch_size=batch_size,
        optimizer=OptimizerConfig("lars", lr, weight_decay=1e-6, exclude_norm_and_bias=True, trust="update"),
        schedule=ScheduleConfig(warmup_epochs=10, per="step", end_share=end_share),
        paper=VICREG,
        table=table,
        data="ImageNet-1k",
        result=f"{result}; here: not measured",
        not_stated=OPEN,
    )


RECIPES = (
    vicreg(PAPER, 1000, 2048, 0.2, 0.002 / 1.6, "Table 1", "73.2 top-1, linear (paper)"),
    vicreg(CODE, 100, 512, 0.3, 1e-3, "commands of the authors' code", "no figure recorded"),
)
