"""FLAGS. Yuchi Zhao and Yuhao Zhou, Fuse Local and Global Semantics in Representation Learning.

Contrast with one's own augmentation and with images of the same class, mined beforehand. Every recipe but MoCo's asks
for --method.pairs.
"""

from __future__ import annotations

from ssl_backbones.methods.flags import FlagsConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import OptimizerConfig
from ssl_backbones.recipes.small_images import CONTRASTIVE, HEADS, flags, small
from ssl_backbones.registry.tables import stated

PAPER = "FLAGS (Zhao and Zhou, Fuse Local and Global Semantics in Representation Learning)"
HELD_OUT = 50
"""Images of each class that neither pairs nor training see."""
OPEN = (
    "Views, queue, temperature, weight decay and momentum are those of MoCo v2, which the paper's MoCo row fits. Which "
    f"{HELD_OUT} images of each class it keeps out of training, the paper does not say; it uses labels, to mine pairs."
)
MINED = (
    f"{OPEN} Its 1024-d features are taken to be layer3's, of MoCo v2 after 800 epochs: ssl-backbones mine-pairs "
    f"resnet50_moco_v2.in1k_800ep --layer layer3 --hold_out {HELD_OUT}."
)
OF_THIS_SIZE = (
    "Pairs by a backbone of this size: ssl-backbones mine-pairs runs/resnet8_moco_v2.imagenette96_100ep --layer layer3."
)


def large(variant: str, method: FlagsConfig, table: str, not_stated: str) -> Recipe:
    """A ResNet-50 under FLAGS."""
    tag = f"in1k_200ep_{variant}"
    return named(
        "resnet50",
        method,
        tag,
        epochs=200,
        batch_size=256,
        hold_out=HELD_OUT,
        optimizer=OptimizerConfig("sgd", 0.03, weight_decay=1e-4),
        paper=PAPER,
        table=table,
        data="ImageNet-1k",
        result=f"{stated(f'resnet50_flags.{tag}', 'top-1, linear')} (paper, the best epoch); here: not measured",
        not_stated=not_stated,
    )


def shorter(variant: str, local_branch: bool) -> Recipe:
    """A ResNet-8 under FLAGS on Imagenette's images at 64 px, with what MoCo v2 has there."""
    method = flags(HEADS["resnet8"], local_branch)
    return small("resnet8", method, 128, CONTRASTIVE, end=f"_{variant}", not_stated=OF_THIS_SIZE)


RECIPES = (
    large("global", FlagsConfig(local_branch=False), "Table 2, augmentation and global pair", MINED),
    large("global_local", FlagsConfig(), "Table 2, augmentation, global and local pair", MINED),
    large("moco", FlagsConfig(global_pair=False, local_branch=False), "Table 2, MoCo with the same loss", OPEN),
    shorter("global", local_branch=False),
    shorter("global_local", local_branch=True),
)
