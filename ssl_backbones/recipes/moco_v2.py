"""Momentum contrast, v2. Chen et al., 2020. https://arxiv.org/abs/2003.04297"""

from __future__ import annotations

from ssl_backbones.methods.moco_v2 import MoCoV2Config
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import OptimizerConfig
from ssl_backbones.registry.tables import stated

MOCO_V2 = "MoCo v2 (Chen et al., 2020, https://arxiv.org/abs/2003.04297)"
LEWEL = "LEWEL (Huang et al., CVPR 2022, https://arxiv.org/abs/2203.14898)"
GPUS = "8 V100 GPUs"


def moco_v2(
    tag: str, epochs: int, table: str, hours: float | None = None, paper: str = LEWEL, not_stated: str = ""
) -> Recipe:
    """MoCo v2 as its code has it, with weight decay on every parameter; at twice the rate on ImageNet-100."""
    small = tag.startswith("in100")
    unit = f"top-1, linear{', ImageNet-100' * small}"
    return named(
        "resnet50",
        MoCoV2Config(),
        tag,
        epochs=epochs,
        batch_size=256,
        optimizer=OptimizerConfig("sgd", 0.06 if small else 0.03, weight_decay=1e-4),
        paper=paper,
        table=table,
        data="ImageNet-100" if small else "ImageNet-1k",
        hardware=GPUS if hours else "not stated",
        hours=hours,
        result=f"{stated(f'resnet50_moco_v2.{tag}', unit)} (paper); here: not measured",
        not_stated=not_stated,
    )


RECIPES = (
    moco_v2("in1k_800ep", 800, "Table 2", 212.0, MOCO_V2, "The hours are four times those of 200 epochs."),
    moco_v2("in1k_200ep", 200, "Table 2", 53.0, MOCO_V2),
    moco_v2(
        "in1k_100ep",
        100,
        "Table 1, baseline",
        26.5,
        not_stated="MoCo's settings, taken over; the hours are half those of 200 epochs.",
    ),
    moco_v2(
        "in100_240ep",
        240,
        "Table 5, global loss alone",
        not_stated="That the table is MoCo-based is inferred; the rate is doubled as LEWEL doubles its own.",
    ),
)
