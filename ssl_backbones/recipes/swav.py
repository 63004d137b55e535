"""SwAV. Caron et al., 2020. https://arxiv.org/abs/2006.09882"""

from __future__ import annotations

from dataclasses import replace

from ssl_backbones.methods.swav import SwAVConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.own import ARCHS, contrastive, heads, own
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import LR_AFTER, OptimizerConfig, ScheduleConfig
from ssl_backbones.recipes.small_images import CONTRASTIVE, EPOCHS, HEADS, SETS, STEPS, small
from ssl_backbones.registry.backbones import SMALL
from ssl_backbones.views import SWAV_CROP, SWAV_VIEWS

END = 1e-3
"""The share of the learning rate that is left at the end."""
LARGE_BATCH = ScheduleConfig(warmup_epochs=10, per="step", start_share=0.3 / 4.8, end_share=END)
SMALL_BATCH = ScheduleConfig(per="step", end_share=END)
QUEUE_FROM = 15
"""The epoch from which small batches are assigned beside a queue."""
SHARP = 0.03
"""Sinkhorn's temperature on small sets, as the public repository advises for a loss that stays at ln K: that of a
ResNet-8 stayed there with .05 (benchmarks/README.md)."""
WIDE = replace(SWAV_VIEWS[0], area=(0.08, 1.0))
OPENCV = "The authors' runs blurred views by OpenCV, over 23 pixels; here it is Pillow's blur."
OPEN = (
    "Batch statistics are those of all processes; the authors' are of groups of eight GPUs at batch 4,096. "
    f"{OPENCV} {LR_AFTER} Initial weights follow this library."
)


def large(
    tag: str, epochs: int, figure: float, method: SwAVConfig, batch_size: int, gpus: int, minutes: float | None
) -> Recipe:
    """A ResNet-50 on ImageNet as the public repository has it, `minutes` an epoch on its GPUs where it says so."""
    few = batch_size == 256
    return named(
        "resnet50",
        method,
        f"in1k_{tag}",
        epochs=epochs,
        batch_size=batch_size,
        optimizer=OptimizerConfig("lars", 0.6 if few else 0.3, weight_decay=1e-6),
        schedule=SMALL_BATCH if few else LARGE_BATCH,
        paper="SwAV (Caron et al., NeurIPS 2020, https://arxiv.org/abs/2006.09882)",
        table="the public repository",
        data="ImageNet-1k",
        hardware=f"{gpus} V100 GPUs",
        hours=None if minutes is None else round(epochs * minutes / 60, 1),
        result=f"{figure} top-1, linear (authors' code); here: not measured",
        not_stated=OPEN,
    )


def beside_queue(epochs: int) -> SwAVConfig:
    """SwAV for a batch of 256."""
    return SwAVConfig(frozen_steps=5005, queue_size=3840, queue_after=QUEUE_FROM / epochs)


def shorter(arch: str, images: str) -> SwAVConfig:
    """SwAV for views of 64 px, without blur; small crops only where they still have a map."""
    view = replace(SWAV_VIEWS[0], blur_p=0.0)
    return SwAVConfig(
        **HEADS[arch],
        epsilon=SHARP,
        prototypes=150,
        frozen_steps=STEPS[images],
        queue_size=1024,
        queue_after=5 / EPOCHS,
        views=(view, view),
        crop=replace(SWAV_CROP, blur_p=0.0, area=(0.05, 0.3), size_share=0.5),
        crops=4 if arch in SMALL else 0,
    )


FIGURES = {800: 75.3, 400: 74.6, 200: 73.9, 100: 72.1}
RECIPES = (
    *(large(f"{epochs}ep", epochs, figure, SwAVConfig(), 4096, 64, 11 / 3) for epochs, figure in FIGURES.items()),
    large("400ep_2x224", 400, 70.1, SwAVConfig(views=(WIDE, WIDE), crops=0), 4096, 64, None),
    *(
        large(f"{epochs}ep_bs256", epochs, figure, beside_queue(epochs), 256, 4, 52 + 1 / 6)
        for epochs, figure in ((400, 74.3), (200, 72.7))
    ),
    *(own(arch, SwAVConfig(**heads(arch), epsilon=SHARP), contrastive(arch)) for arch in ARCHS),
    *(small(arch, shorter(arch, images), 128, CONTRASTIVE, images) for arch in HEADS for images in SETS),
)
