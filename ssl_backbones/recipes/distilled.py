"""Distillation from teachers that anybody can load, of features kept beside the images; settings are our own.

Views and optimiser begin from SimReg (Navaneet et al., 2021. https://arxiv.org/abs/2201.05131).
"""

from __future__ import annotations

from typing import Any

from ssl_backbones.methods.distilled import DistilledConfig
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.models.teacher_branch import BESIDE
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.own import ARCHS, own
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import Monitoring, OptimizerConfig, ScheduleConfig
from ssl_backbones.registry.tags import TAGS
from ssl_backbones.views import DISTILLED_KEPT_VIEW

TEACHERS: dict[str, dict[str, Any]] = {
    "dinov2": {"teacher": "vit_small_patch14_dinov2.lvd142m", "teacher_output": "class", "teacher_size": 112},
    "lite0": {"teacher": "tf_efficientnet_lite0.in1k", "teacher_size": 128},
}
"""A transformer that learnt without labels, and a small network that learnt with those of ImageNet."""
DATA = {"imagenette": "Imagenette", "goods": "goods_128"}
CASES = (
    ("resnet8", "imagenette", 32, 60),
    ("resnet8", "goods", 32, 60),
    ("resnet18", "imagenette", 64, 20),
    ("resnet18", "goods", 96, 40),
)
DEEPER = (
    ("resnet20", "imagenette", 64, 20),
    ("resnet20", "goods", 64, 20),
)
"""Networks, their images, the side in pixels and the epochs; the second are small enough to ship."""
PUBLISHED = {tag.name: f"model_cards/{tag.name}.md" for tag in TAGS} | {
    name: f"weights/{name}/README.md" for name in ("resnet18_distilled.goods96_40ep_lite0",)
}
"""Recipes whose weights are at hand, in the package or beside it, and their cards."""
OPTIMIZER = OptimizerConfig("adamw", 2e-3, lr_rule="absolute", weight_decay=0.02, exclude_norm_and_bias=True)


def taught(arch: str, data: str, size: int, epochs: int, tag: str, method: MethodConfig, paper: str) -> Recipe:
    """A network on some images, by a method with a teacher; its tag ends in `tag`."""
    tag = f"{data}{size}_{epochs}ep_{tag}"
    name = f"{arch}_{method.name}.{tag}"
    return named(
        arch,
        method,
        tag,
        size=size,
        epochs=epochs,
        batch_size=64,
        optimizer=OPTIMIZER,
        schedule=ScheduleConfig(warmup_epochs=3, per="step"),
        monitoring=Monitoring(knn_every=5),
        paper=f"{paper}, on small images (no paper)",
        table=f"{arch} at {size} px",
        data=DATA[data],
        hardware="2 CPU cores",
        result=f"our own, in {PUBLISHED[name]}" if name in PUBLISHED else "not measured",
    )


def distilled(arch: str, data: str, size: int, epochs: int, teacher: str) -> Recipe:
    """A network on some images, from a teacher's kept features."""
    method = DistilledConfig(**TEACHERS[teacher], kept=BESIDE, views=(DISTILLED_KEPT_VIEW,))
    return taught(arch, data, size, epochs, teacher, method, "Distillation")


OWN = DistilledConfig(kept=BESIDE, views=(DISTILLED_KEPT_VIEW,))
RECIPES = (
    *(distilled(*case, teacher) for case in (*CASES, *DEEPER) for teacher in TEACHERS),
    *(own(arch, OWN, OPTIMIZER) for arch in ARCHS),
)
