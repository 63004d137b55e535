"""PixPro. Xie et al., 2021. https://arxiv.org/abs/2011.10043"""

from __future__ import annotations

from dataclasses import replace

from ssl_backbones.methods.pixpro import PixProConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.own import ARCHS, heads, own, predictive
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import LR_AFTER, OptimizerConfig, ScheduleConfig
from ssl_backbones.recipes.small_images import HEADS, PREDICTIVE, SETS, small
from ssl_backbones.registry.backbones import SMALL
from ssl_backbones.views import PIXPRO_VIEWS

GRID = 8
"""Positions a side to which the large maps of small networks are pooled."""
FEW = (
    "Feature maps of fewer than 4 x 4 positions have few pairs: a ResNet-18 or larger wants --size 128 at least, or "
    "--output_stride 16."
)


def large(epochs: int, detection: float) -> Recipe:
    """A ResNet-50 on ImageNet as the public repository has it."""
    return named(
        "resnet50",
        PixProConfig(),
        f"in1k_{epochs}ep",
        epochs=epochs,
        batch_size=1024,
        optimizer=OptimizerConfig("lars", 1.0, weight_decay=1e-5, exclude_norm_and_bias=True, trust="update"),
        schedule=ScheduleConfig(warmup_epochs=5, per="step", start_share=0.01, end_share=1e-6 / 4),
        paper="PixPro (Xie et al., CVPR 2021, https://arxiv.org/abs/2011.10043)",
        table="the public repository",
        data="ImageNet-1k",
        hardware="8 GPUs",
        result=f"{detection} AP of VOC detection, C4 (authors' code); here: not measured",
        not_stated="The pixel loss alone, without the instance branch: judge it by dense tasks, for its features "
        "are not made to tell whole images apart. Its loss rises again after the first epochs, in the authors' "
        f"runs too. Initial weights follow this library. {LR_AFTER}",
    )


FIRST, SECOND = (replace(view, blur_p=0.0) for view in PIXPRO_VIEWS)
SHORTER = PixProConfig(**HEADS["resnet8"], grid=GRID, target_momentum=0.98, views=(FIRST, SECOND))
"""For views of 64 px, without blur, with a target that follows more closely."""


def grid(arch: str) -> int:
    """The positions a side to which maps are pooled: those of the small networks alone."""
    return GRID if arch in SMALL else 0


def of_own(arch: str) -> PixProConfig:
    """PixPro for one's own images."""
    return PixProConfig(**heads(arch), grid=grid(arch), target_momentum=SHORTER.target_momentum)


RECIPES = (
    large(100, 58.8),
    large(400, 60.2),
    *(own(arch, of_own(arch), predictive(arch), FEW, ("method.target_momentum",)) for arch in ARCHS),
    *(small("resnet8", SHORTER, 64, PREDICTIVE, images) for images in SETS),
)
"""The small ones are of a ResNet-8 alone: a ResNet-18 makes maps of 2 x 2 positions of 64 px."""
