"""Barlow Twins. Zbontar et al., 2021. https://arxiv.org/abs/2103.03230"""

from __future__ import annotations

from ssl_backbones.methods.barlow_twins import BarlowTwinsConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.settings import LR_AFTER, OptimizerConfig, ScheduleConfig

RECIPES = (
    named(
        "resnet50",
        BarlowTwinsConfig(),
        "in1k_1000ep",
        epochs=1000,
        batch_size=2048,
        optimizer=OptimizerConfig(
            "lars", 0.2, weight_decay=1.5e-6, exclude_norm_and_bias=True, norm_and_bias_lr=0.0048 / 32, trust="update"
        ),
        schedule=ScheduleConfig(warmup_epochs=10, per="step", end_share=1e-3),
        paper="Barlow Twins (Zbontar et al., 2021, https://arxiv.org/abs/2103.03230)",
        table="Table 1",
        data="ImageNet-1k",
        hardware="32 V100 GPUs",
        hours=124.0,
        result="73.2 top-1, linear (paper); here: not measured",
        not_stated="The authors' code averages over its 32 GPUs gradients of each one's part of the correlation "
        "alone, 1/32 of the loss's. LARS undoes that for weights; biases and BatchNorm have 1/32 of the stated "
        "0.0048 for it. The decay is as stated, and weighs 1/32 as much beside the gradient here. The trust ratio "
        f"is BYOL's; initial weights follow this library. {LR_AFTER}",
    ),
)
