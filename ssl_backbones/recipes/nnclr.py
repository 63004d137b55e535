"""NNCLR. Dwibedi et al., 2021. https://arxiv.org/abs/2104.14548"""

from __future__ import annotations

from typing import Any

from ssl_backbones.methods.nnclr import NNCLRConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.own import ARCHS, heads, own
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import OptimizerConfig, ScheduleConfig
from ssl_backbones.recipes.small_images import CONTRASTIVE, HEADS, SETS, small
from ssl_backbones.views import SIMCLR_SMALL_VIEWS

LARS = OptimizerConfig("lars", 0.3, weight_decay=1e-6, exclude_norm_and_bias=True, trust="update")
FIGURES = {1000: "75.6", 800: "about 74.9", 400: "about 74.2", 200: "about 70.7", 100: "about 69.4"}
"""Top-1 by linear evaluation: that of 1,000 epochs stands in the abstract, the others were not read again."""


def large(epochs: int, figure: str) -> Recipe:
    """A ResNet-50 on ImageNet at the paper's batch."""
    return named(
        "resnet50",
        NNCLRConfig(),
        f"in1k_{epochs}ep",
        epochs=epochs,
        batch_size=4096,
        optimizer=LARS,
        schedule=ScheduleConfig(warmup_epochs=10, per="step"),
        paper="NNCLR (Dwibedi et al., 2021, https://arxiv.org/abs/2104.14548)",
        table="abstract" if epochs == 1000 else "its table by epochs",
        data="ImageNet-1k",
        result=f"{figure} top-1, linear (paper); here: not measured",
        not_stated="No code of the authors is public: views, what LARS leaves plain and initial weights are "
        "those of SimCLR here.",
    )


def widths(found: dict[str, Any]) -> dict[str, Any]:
    """Those of the heads of a small network, predictor included."""
    return found | {"predictor_dim": found["hidden_dim"]} if found else found


def shorter(arch: str, exclude_self: bool = False) -> NNCLRConfig:
    """NNCLR with a queue of a fraction of the images, for views of 64 px."""
    sizes = widths(HEADS[arch])
    return NNCLRConfig(**sizes, queue_size=2048, exclude_self=exclude_self, views=SIMCLR_SMALL_VIEWS)


def of_own(arch: str) -> NNCLRConfig:
    """NNCLR for one's own images: of few, the queue holds earlier embeddings of a query's own image, left out here."""
    return NNCLRConfig(**widths(heads(arch)), exclude_self=True)


RECIPES = (
    *(large(epochs, figure) for epochs, figure in FIGURES.items()),
    *(small(arch, shorter(arch), 128, CONTRASTIVE, images) for arch in HEADS for images in SETS),
    *(small(arch, shorter(arch, exclude_self=True), 128, CONTRASTIVE, end="_others") for arch in HEADS),
    *(own(arch, of_own(arch), LARS if arch == "resnet50" else CONTRASTIVE) for arch in ARCHS),
)
