"""DINO for ResNets. Caron et al., 2021. https://arxiv.org/abs/2104.14294"""

from __future__ import annotations

from dataclasses import replace

from ssl_backbones.methods.dino import DINOConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.own import ARCHS, contrastive, heads, own
from ssl_backbones.recipes.settings import OptimizerConfig, ScheduleConfig
from ssl_backbones.recipes.small_images import HEADS, SETS, STEPS, small
from ssl_backbones.registry.backbones import SMALL
from ssl_backbones.views import DINO_CROP, DINO_VIEWS

LARGE = named(
    "resnet50",
    DINOConfig(),
    "in1k_100ep",
    epochs=100,
    batch_size=512,
    optimizer=OptimizerConfig(
        "sgd", 0.03, weight_decay=1e-4, exclude_norm_and_bias=True, clip=3.0, clip_per="parameter"
    ),
    schedule=ScheduleConfig(warmup_epochs=10, per="step", end_share=1e-6 / 0.06),
    paper="DINO (Caron et al., ICCV 2021, https://arxiv.org/abs/2104.14294)",
    table="the public repository's README, ResNet-50",
    data="ImageNet-1k",
    hardware="8 GPUs",
    result="no figure of these settings; 75.3 by the authors' 800 epochs with another head; here: not measured",
    not_stated="The head of the network that the authors publish is not the one of their code. Initial weights of "
    "the backbone follow this library.",
)


def shorter(arch: str, images: str) -> DINOConfig:
    """DINO for views of 64 px, without blur; small crops only where they still have a map."""
    first, second = (replace(view, blur_p=0.0) for view in DINO_VIEWS)
    return DINOConfig(
        **HEADS[arch],
        outputs=1024,
        target_momentum=0.99,
        frozen_steps=STEPS[images],
        views=(first, second),
        crop=replace(DINO_CROP, blur_p=0.0, area=(0.05, 0.3), size_share=0.5),
        crops=4 if arch in SMALL else 0,
    )


def clipped(arch: str) -> OptimizerConfig:
    """A contrastive method's optimiser, with gradients cut as in the authors' code."""
    return replace(contrastive(arch), clip=3.0, clip_per="parameter")


def of_own(arch: str) -> DINOConfig:
    """DINO for one's own images; its target, a teacher, moves slower than BYOL's."""
    return DINOConfig(**heads(arch), outputs=4096, target_momentum=0.99)


RECIPES = (
    LARGE,
    *(own(arch, of_own(arch), clipped(arch), fixed=("method.target_momentum",)) for arch in ARCHS),
    *(small(arch, shorter(arch, images), 128, clipped(arch), images) for arch in HEADS for images in SETS),
)
