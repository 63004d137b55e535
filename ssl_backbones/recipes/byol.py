"""Bootstrap your own latent. Grill et al., 2020. https://arxiv.org/abs/2006.07733

And the baseline of EMAN (Cai et al., 2021. https://arxiv.org/abs/2101.08482), with which LEWEL is compared.
"""

from __future__ import annotations

from ssl_backbones.methods.byol import BYOLConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import LR_AFTER, OptimizerConfig, ScheduleConfig
from ssl_backbones.registry.tables import stated
from ssl_backbones.views import BYOL_VIEWS

BYOL = "BYOL (Grill et al., 2020, https://arxiv.org/abs/2006.07733)"
LEWEL = "LEWEL (Huang et al., CVPR 2022, https://arxiv.org/abs/2203.14898)"


def deepmind(
    epochs: int,
    lr: float,
    weight_decay: float,
    momentum: float,
    result: str = "no figure recorded; here: not measured",
    hours: float | None = None,
    name: str = "",
) -> Recipe:
    """A preset of DeepMind's code."""
    return named(
        "resnet50",
        BYOLConfig(predictor_init="kaiming", target_momentum=momentum, target_bn="sync", views=BYOL_VIEWS),
        f"in1k_{epochs}ep{name}",
        epochs=epochs,
        batch_size=4096,
        optimizer=OptimizerConfig("lars", lr, weight_decay=weight_decay, exclude_norm_and_bias=True, trust="update"),
        schedule=ScheduleConfig(warmup_epochs=10, per="step"),
        paper=BYOL,
        table="presets of DeepMind's code" if epochs < 1000 else "section 3.3 and Table 1",
        data="ImageNet-1k",
        hardware="512 TPU v3 cores",
        hours=hours,
        result=result,
        not_stated="Initial weights follow this library; the heads' first layers have no bias here; the warm-up "
        f"starts at one step's share instead of 0. {LR_AFTER}",
    )


def eman(data: str, tag: str, epochs: int, lr: float, table: str, *units: str) -> Recipe:
    """The baseline that LEWEL's tables call BYOL."""
    return named(
        "resnet50",
        BYOLConfig(),
        tag,
        epochs=epochs,
        batch_size=512,
        optimizer=OptimizerConfig("lars", lr, weight_decay=1e-6, exclude_norm_and_bias=True),
        schedule=ScheduleConfig(warmup_epochs=10),
        paper=LEWEL,
        table=table,
        data=data,
        result=f"{stated(f'resnet50_byol.{tag}', *units)} (paper); here: not measured",
        not_stated="Settings of EMAN's own BYOL; LARS, its exclusions and the moving cosine are those of LEWEL's "
        "code, which descends from it.",
    )


RECIPES = (
    deepmind(1000, 0.2, 1.5e-6, 0.996, "74.3 top-1, linear, ImageNet-1k (paper); here: not measured", 8.0),
    deepmind(300, 0.3, 1e-6, 0.99),
    deepmind(100, 0.45, 1e-6, 0.99, name="_deepmind"),
    deepmind(40, 0.45, 1e-6, 0.97),
    eman("ImageNet-1k", "in1k_200ep", 200, 0.9, "Table 1, baseline", "top-1, linear"),
    eman("ImageNet-1k", "in1k_100ep", 100, 0.9, "Table 1, baseline", "top-1, linear"),
    eman("ImageNet-100", "in100_240ep", 240, 1.8, "Table 7, baseline", "top-1, linear, ImageNet-100", "mIoU on VOC"),
)
