"""PCL. Li et al., 2021. https://arxiv.org/abs/2005.04966"""

from __future__ import annotations

from ssl_backbones.methods.pcl import PCLConfig
from ssl_backbones.recipes.instdisc import GREY_FIRST
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.own import ARCHS, contrastive, heads, own
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.rules import SHARES
from ssl_backbones.recipes.settings import OptimizerConfig, ScheduleConfig
from ssl_backbones.recipes.small_images import CONTRASTIVE, HEADS, SETS, small
from ssl_backbones.views import INSTDISC_VIEW, MOCO_V2_SMALL_VIEWS

FIRST = PCLConfig(hidden_dim=0, views=(INSTDISC_VIEW, INSTDISC_VIEW))
"""The first version: MoCo's head and views, as PCL v2 has those of MoCo v2."""
STEPS = ScheduleConfig("step", milestones=(120, 160))
IMAGES = {"imagenette96": 9469, "goods128": 7768}


def large(
    tag: str, version: str, method: PCLConfig, schedule: ScheduleConfig, figure: float, not_stated: str = ""
) -> Recipe:
    """A ResNet-50 on ImageNet as the public repository has it."""
    return named(
        "resnet50",
        method,
        f"in1k_{tag}",
        epochs=200,
        batch_size=256,
        optimizer=OptimizerConfig("sgd", 0.03, weight_decay=1e-4),
        schedule=schedule,
        paper="PCL (Li et al., ICLR 2021, https://arxiv.org/abs/2005.04966)",
        table=f"the public repository, {version}",
        data="ImageNet-1k",
        hardware="4 or 8 GPUs",
        result=f"{figure} top-1, linear (authors' code); here: not measured",
        not_stated="An image's own prototype is no negative of it, where the authors' code has it again for each "
        f"other image of its cluster. Initial weights follow this library. {not_stated}".rstrip(),
    )


def shorter(arch: str, images: str) -> PCLConfig:
    """PCL with a queue and prototypes fewer than the data, all of which are negatives."""
    return PCLConfig(
        **HEADS[arch],
        queue_size=4096,
        momentum=0.99,
        views=MOCO_V2_SMALL_VIEWS,
        granularities=tuple(IMAGES[images] // share for share in SHARES),
        negatives=0,
        instance_epochs=10,
    )


RECIPES = (
    large("200ep", "PCL v2", PCLConfig(), ScheduleConfig(), 67.6),
    large("200ep_v1", "PCL v1", FIRST, STEPS, 61.5, GREY_FIRST),
    *(small(arch, shorter(arch, images), 128, CONTRASTIVE, images) for arch in HEADS for images in SETS),
    *(own(arch, PCLConfig(**heads(arch), negatives=0), contrastive(arch)) for arch in ARCHS),
)
