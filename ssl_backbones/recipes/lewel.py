"""LEWEL. Huang et al., Learning Where to Learn in Cross-View Self-Supervised Learning, CVPR 2022.

https://arxiv.org/abs/2203.14898. Where the paper and its public code disagree, the plain tag follows the code (it made
the published backbones) and the tag that ends in _sgd follows the paper.
"""

from __future__ import annotations

from ssl_backbones.methods.lewel_b import LewelBConfig
from ssl_backbones.methods.lewel_m import LewelMConfig
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import OptimizerConfig, ScheduleConfig
from ssl_backbones.registry.tables import stated

PAPER = "LEWEL (Huang et al., CVPR 2022, https://arxiv.org/abs/2203.14898)"
IN1K, IN100 = "ImageNet-1k", "ImageNet-100"
GPUS = "8 V100 GPUs"
SGD = OptimizerConfig("sgd", 0.9, weight_decay=1e-6, exclude_norm_and_bias=True)
"""SGD as the paper states it for LEWEL_B, at a rate for 256 images."""

SYNC = "SyncBN in every part, heads included."
GAMMAS = "The heads' normalisation scales are decayed and adapted, as in the log of the published run."
AS_STATED = (
    "The paper says SGD where its code uses LARS; weight decay (1e-6) is that of EMAN's BYOL; the "
    "warm-up is the code's. Its published backbones come from the code: see the tag without _sgd."
)
LEWEL_M_OPEN = (
    "No code of LEWEL_M is public: weight decay and queue are MoCo's, groups are LEWEL_B's, one direction is inferred "
    "from the time of a step, and aligned negatives are all maps of the other images of all processes."
)


def lars(lr: float, weight_decay: float, exclude_head_norm: bool) -> OptimizerConfig:
    """LARS as LEWEL's code has it, at a rate for 256 images."""
    return OptimizerConfig(
        "lars", lr, weight_decay=weight_decay, exclude_norm_and_bias=True, exclude_head_norm=exclude_head_norm
    )


def recipe(
    tag: str,
    epochs: int,
    batch_size: int,
    method: MethodConfig,
    optimizer: OptimizerConfig,
    table: str,
    data: str = IN1K,
    hours: float | None = None,
    not_stated: str = "",
) -> Recipe:
    """A ResNet-50 under LEWEL: cosine by the epoch, after ten epochs of warm-up for LEWEL_B."""
    row = f"resnet50_{method.name}.{tag.removesuffix('_sgd')}"
    return named(
        "resnet50",
        method,
        tag,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        schedule=ScheduleConfig(warmup_epochs=10 if isinstance(method, LewelBConfig) else 0),
        paper=PAPER,
        table=table,
        data=data,
        hardware=GPUS if hours else "not stated",
        hours=hours,
        result=f"{stated(row, f'top-1, linear, {data}')} (paper); here: not measured",
        not_stated=not_stated,
    )


SYNCHRONISED = LewelBConfig(target_bn="sync", target_momentum=0.996)

LEWEL_B = (
    recipe(
        "in1k_400ep",
        400,
        4096,
        SYNCHRONISED,
        lars(0.45, 1e-6, exclude_head_norm=False),
        "Table 1; code's SyncBN script",
        not_stated=f"Batch, rate and momentum stand in the script alone. {SYNC}",
    ),
    recipe(
        "in1k_200ep",
        200,
        1024,
        LewelBConfig(),
        lars(0.9, 1.5e-6, exclude_head_norm=True),
        "Table 1; code's EMAN script",
        hours=57.0,
        not_stated="Settings of the released code; those of the published 100-epoch log differ in weight decay (1e-6) "
        "and in the heads' normalisation scales. The hours are twice those of the log.",
    ),
    recipe(
        "in1k_100ep",
        100,
        1024,
        LewelBConfig(),
        lars(0.9, 1e-6, exclude_head_norm=False),
        "Table 1; published log",
        hours=28.5,
        not_stated=GAMMAS,
    ),
    recipe(
        "in1k_400ep_sgd",
        400,
        512,
        LewelBConfig(target_bn="sync"),
        SGD,
        "Table 1; paper's text",
        not_stated=f"{AS_STATED} {SYNC}",
    ),
    *(
        recipe(
            f"in1k_{epochs}ep_sgd",
            epochs,
            512,
            LewelBConfig(),
            SGD,
            "Table 1; paper's text",
            not_stated=AS_STATED,
        )
        for epochs in (200, 100)
    ),
    recipe(
        "in100_240ep",
        240,
        512,
        LewelBConfig(),
        lars(1.8, 1e-6, exclude_head_norm=False),
        "Table 7, c = 256 and h = 4",
        data=IN100,
        not_stated="LARS and its exclusions are the code's, the batch and the doubled rate the paper's.",
    ),
)

LEWEL_M = (
    *(
        recipe(
            f"in1k_{epochs}ep",
            epochs,
            256,
            LewelMConfig(),
            OptimizerConfig("sgd", 0.06, weight_decay=1e-4),
            "Table 1",
            not_stated=LEWEL_M_OPEN,
        )
        for epochs in (200, 100)
    ),
    recipe(
        "in100_240ep",
        240,
        256,
        LewelMConfig(),
        OptimizerConfig("sgd", 0.12, weight_decay=1e-4),
        "Table 5, both losses, coupled head",
        data=IN100,
        not_stated=f"That the table is MoCo-based is inferred. {LEWEL_M_OPEN}",
    ),
)

RECIPES = LEWEL_B + LEWEL_M
