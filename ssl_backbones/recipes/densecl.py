"""DenseCL. Wang et al., 2021. https://arxiv.org/abs/2011.09157"""

from __future__ import annotations

from ssl_backbones.methods.densecl import DenseCLConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.own import ARCHS, contrastive, heads, own
from ssl_backbones.recipes.settings import OptimizerConfig
from ssl_backbones.recipes.small_images import CONTRASTIVE, EPOCHS, HEADS, SETS, small
from ssl_backbones.registry.backbones import SMALL
from ssl_backbones.views import MOCO_V2_SMALL_VIEWS

GRID = 7
"""The positions a side that the paper's feature maps have."""

LARGE = named(
    "resnet50",
    DenseCLConfig(),
    "in1k_200ep",
    epochs=200,
    batch_size=256,
    optimizer=OptimizerConfig("sgd", 0.03, weight_decay=1e-4),
    paper="DenseCL (Wang et al., CVPR 2021, https://arxiv.org/abs/2011.09157)",
    table="the public repository",
    data="ImageNet-1k",
    hardware="8 GPUs",
    hours=55.2,
    result="63.5 top-1, linear (mmselfsup), and 58.7 AP of VOC detection (authors' code); here: not measured",
    not_stated="Initial weights follow this library.",
)


def shorter(arch: str) -> DenseCLConfig:
    """DenseCL with a queue smaller than the data; the dense loss joins after an epoch."""
    return DenseCLConfig(
        **HEADS[arch],
        queue_size=4096,
        momentum=0.99,
        views=MOCO_V2_SMALL_VIEWS,
        dense_after=1 / EPOCHS,
        grid=grid(arch),
    )


def grid(arch: str) -> int:
    """The paper's grid where the stride is short and the map large; elsewhere the map as it is."""
    return GRID if arch in SMALL else 0


RECIPES = (
    LARGE,
    *(small(arch, shorter(arch), 128, CONTRASTIVE, images) for arch in HEADS for images in SETS),
    *(own(arch, DenseCLConfig(**heads(arch), grid=grid(arch)), contrastive(arch)) for arch in ARCHS),
)
