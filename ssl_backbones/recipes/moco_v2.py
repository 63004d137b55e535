"""Momentum contrast, v2. Chen et al., 2020. https://arxiv.org/abs/2003.04297"""

from __future__ import annotations

from ssl_backbones.methods.moco_v2 import MoCoV2Config
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import OptimizerConfig, Promise

MOCO_V2 = "MoCo v2 (Chen et al., 2020, https://arxiv.org/abs/2003.04297)"
LEWEL = "LEWEL (Huang et al., CVPR 2022, https://arxiv.org/abs/2203.14898)"
GPUS = "8 V100 GPUs"


def moco_v2(tag: str, epochs: int, promise: Promise, lr: float = 0.03) -> Recipe:
    """MoCo v2 as its code has it, with weight decay on every parameter."""
    return Recipe(
        name=f"resnet50_moco_v2.{tag}",
        model="resnet50_moco_v2",
        method=MoCoV2Config(),
        epochs=epochs,
        batch_size=256,
        optimizer=OptimizerConfig("sgd", lr, weight_decay=1e-4),
        promise=promise,
    )


RECIPES = (
    moco_v2(
        "in1k_800ep",
        800,
        Promise(
            MOCO_V2,
            "Table 2",
            "ImageNet-1k",
            800,
            GPUS,
            212.0,
            "71.1 top-1, linear (paper); here: not measured",
            "The hours are four times those of 200 epochs.",
        ),
    ),
    moco_v2(
        "in1k_200ep",
        200,
        Promise(MOCO_V2, "Table 2", "ImageNet-1k", 200, GPUS, 53.0, "67.5 top-1, linear (paper); here: not measured"),
    ),
    moco_v2(
        "in1k_100ep",
        100,
        Promise(
            LEWEL,
            "Table 1, baseline",
            "ImageNet-1k",
            100,
            GPUS,
            26.5,
            "64.5 top-1, linear (paper); here: not measured",
            "MoCo's settings, taken over; the hours are half those of 200 epochs.",
        ),
    ),
    moco_v2(
        "in100_240ep",
        240,
        Promise(
            LEWEL,
            "Table 5, global loss alone",
            "ImageNet-100",
            240,
            "not stated",
            None,
            "79.5 top-1, linear, ImageNet-100 (paper); here: not measured",
            "That the table is MoCo-based is inferred; the rate is doubled as LEWEL doubles its own.",
        ),
        lr=0.06,
    ),
)
