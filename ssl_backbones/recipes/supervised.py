"""ResNet-50 trained with labels on ImageNet: the baseline of LEWEL's Tables 3 and 4 and of FLAGS' Tables 1, 3 and 4.

He et al., 2016. https://arxiv.org/abs/1512.03385. The settings are those of torchvision's reference for its first
weights.
"""

from __future__ import annotations

from ssl_backbones.methods import SupervisedConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.settings import OptimizerConfig, ScheduleConfig
from ssl_backbones.registry.tables import stated
from ssl_backbones.views import SUPERVISED_VIEW

FIGURE = stated("resnet50_supervised.in1k_90ep", "top-1 of its own classifier")

RECIPES = (
    named(
        "resnet50",
        SupervisedConfig(classes=1000, views=SUPERVISED_VIEW),
        "in1k_90ep",
        epochs=90,
        batch_size=256,
        optimizer=OptimizerConfig("sgd", 0.1, weight_decay=1e-4),
        schedule=ScheduleConfig("step", milestones=(30, 60)),
        paper="ResNet (He et al., 2016, https://arxiv.org/abs/1512.03385)",
        table="FLAGS, Table 1, as quoted there",
        data="ImageNet-1k",
        hardware="8 GPUs",
        result=f"{FIGURE} (quoted by FLAGS); here: not measured",
        not_stated="Which supervised weights LEWEL and FLAGS compare with; initial weights follow this library.",
    ),
)
