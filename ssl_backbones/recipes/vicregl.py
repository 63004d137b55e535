"""VICRegL. Bardes et al., 2022. https://arxiv.org/abs/2210.01571"""

from __future__ import annotations

from ssl_backbones.methods.vicregl import VICRegLConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import LR_AFTER, OptimizerConfig, ScheduleConfig
from ssl_backbones.recipes.small_images import HEADS, SETS, small
from ssl_backbones.recipes.small_joint_embedding import REDUNDANCY
from ssl_backbones.views import LEWEL_B_SMALL_VIEWS

VICREGL = "VICRegL (Bardes et al., NeurIPS 2022, https://arxiv.org/abs/2210.01571)"
OPEN = (
    "The authors' code takes 20 matches by place from one view and 4 from the other, matches mirrored views at other "
    "places, and compares all positions by features; here it is the paper's gamma of 20 throughout, and mirrored views "
    "match. As first released it kept one of the two orders of the views in the local loss, halved, and since December "
    "2022 the mean of both, as here; which gave the figures is not told. Variance and covariance are of matches in the "
    "order of their positions there, of their distances here. What LARS leaves plain and its trust ratio are BYOL's; "
    f"initial weights follow this library. {LR_AFTER}"
)
VARIANCE, COVARIANCE = 12.5, 0.5
"""The paper's 25 and 1 as the authors' code has them, which takes the mean of both terms over the two views:
`VICRegLConfig` weighs their sum."""


def large(tag: str, epochs: int, batch_size: int, lr: float, alpha: float, result: str) -> Recipe:
    """A ResNet-50 on ImageNet, at a rate for 256 images."""
    return named(
        "resnet50",
        VICRegLConfig(global_weight=alpha, variance=VARIANCE, covariance=COVARIANCE),
        f"in1k_{tag}",
        epochs=epochs,
        batch_size=batch_size,
        optimizer=OptimizerConfig("lars", lr, weight_decay=1e-6, exclude_norm_and_bias=True, trust="update"),
        schedule=ScheduleConfig(warmup_epochs=10, per="step", end_share=1e-3),
        paper=VICREGL,
        table="the public repository",
        data="ImageNet-1k",
        result=result,
        not_stated=OPEN,
    )


def published(top1: float, miou: float) -> str:
    """The figures of the public repository."""
    return f"{top1} top-1, linear, and {miou} mIoU, linear segmentation (authors' code); here: not measured"


WIDTH = HEADS["resnet8"]["hidden_dim"]
SMALL = VICRegLConfig(
    WIDTH, WIDTH, local_dim=128, grid=7, variance=VARIANCE, covariance=COVARIANCE, views=LEWEL_B_SMALL_VIEWS
)
"""For a ResNet-8 at 64 px, whose maps are pooled to the paper's 7 x 7 positions."""

RECIPES = (
    large("300ep", 300, 2048, 0.2, 0.9, published(71.2, 54.0)),
    large("300ep_alpha75", 300, 2048, 0.2, 0.75, published(70.4, 55.9)),
    large("100ep", 100, 512, 0.3, 0.75, "no figure recorded; here: not measured"),
    *(small("resnet8", SMALL, 128, REDUNDANCY, images) for images in SETS),
)
