"""InstDisc. Wu et al., 2018. https://arxiv.org/abs/1805.01978"""

from __future__ import annotations

from ssl_backbones.methods.instdisc import InstDiscConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.own import ARCHS, contrastive, own
from ssl_backbones.recipes.settings import OptimizerConfig, ScheduleConfig
from ssl_backbones.recipes.small_images import CONTRASTIVE, HEADS, SETS, small

GREY_FIRST = "The authors' code turns views grey before it jitters their colours; here the jitter comes first."
"""Told where a recipe follows a code whose views are InstDisc's."""
LARGE = named(
    "resnet50",
    InstDiscConfig(),
    "in1k_200ep",
    epochs=200,
    batch_size=256,
    optimizer=OptimizerConfig("sgd", 0.03, weight_decay=1e-4),
    schedule=ScheduleConfig("step", milestones=(120, 160)),
    paper="InstDisc (Wu et al., CVPR 2018, https://arxiv.org/abs/1805.01978)",
    table="the public repository",
    data="ImageNet-1k",
    result="46.8 top-1 of 200 neighbours among the embeddings (the authors' README); here: not measured",
    not_stated="The authors compare the head's 128 numbers with the memory of the training; k-NN here compares the "
    "backbone's features. The proximal term of the paper is left out, as in the authors' code; initial weights "
    f"follow this library. {GREY_FIRST}",
)
ALL = InstDiscConfig(noise=0)
"""Each image against all others: no noise to draw where the data are small."""
RECIPES = (
    LARGE,
    *(small(arch, ALL, 128, CONTRASTIVE, images) for arch in HEADS for images in SETS),
    *(own(arch, ALL, contrastive(arch)) for arch in ARCHS),
)
