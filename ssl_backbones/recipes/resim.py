"""ReSim. Xiao et al., 2021. https://arxiv.org/abs/2103.12902"""

from __future__ import annotations

from typing import Any

from ssl_backbones.methods.resim import ReSimConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.own import ARCHS, contrastive, heads, own
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import OptimizerConfig
from ssl_backbones.recipes.small_images import CONTRASTIVE, HEADS, SETS, small
from ssl_backbones.registry.backbones import SMALL
from ssl_backbones.views import MOCO_V2_SMALL_VIEWS

GRID = 7
"""Positions a side to which the coarser of the large maps of small networks is pooled."""
FEW = "Maps of few positions have few windows: a ResNet-18 or larger wants --size 128 at least, or --output_stride 16."


def large(epochs: int, result: str) -> Recipe:
    """A ResNet-50 on ImageNet with a pyramid, as the public repository has it."""
    return named(
        "resnet50",
        ReSimConfig(),
        f"in1k_{epochs}ep",
        epochs=epochs,
        batch_size=256,
        optimizer=OptimizerConfig("sgd", 0.03, weight_decay=1e-4),
        paper="ReSim (Xiao et al., ICCV 2021, https://arxiv.org/abs/2103.12902)",
        table="the public repository, ReSim-FPN",
        data="ImageNet-1k",
        result=f"{result} (authors' code); here: not measured",
        not_stated="The authors' code mirrors both views of an image or neither, and blurs them before their "
        "colours change; here views are MoCo v2's. Initial weights follow this library.",
    )


def shorter(arch: str) -> ReSimConfig:
    """ReSim with a queue smaller than the data."""
    return ReSimConfig(**HEADS[arch], queue_size=4096, momentum=0.99, views=MOCO_V2_SMALL_VIEWS, **maps(arch))


def maps(arch: str) -> dict[str, Any]:
    """Few and narrow positions of the small networks, whose maps are large; elsewhere maps as the paper has them."""
    return {"map_dim": 64, "grid": GRID} if arch in SMALL else {}


RECIPES = (
    large(200, "41.4 AP of COCO detection, FPN, 2x"),
    large(400, "41.9 AP of COCO detection, FPN, 2x"),
    *(small("resnet8", shorter("resnet8"), 128, CONTRASTIVE, images) for images in SETS),
    *(own(arch, ReSimConfig(**heads(arch), **maps(arch)), contrastive(arch), FEW) for arch in ARCHS),
)
"""The small ones are of a ResNet-8 alone: a ResNet-18 makes maps of 4 x 4 and 8 x 8 positions of 64 px."""
