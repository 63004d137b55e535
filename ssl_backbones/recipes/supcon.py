"""Supervised contrastive learning. Khosla et al., 2020. https://arxiv.org/abs/2004.11362"""

from __future__ import annotations

from ssl_backbones.methods.supcon import SupConConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.own import ARCHS, contrastive, heads, own
from ssl_backbones.recipes.settings import OptimizerConfig, ScheduleConfig
from ssl_backbones.recipes.small_images import CONTRASTIVE, HEADS, SETS, small
from ssl_backbones.views import SIMCLR_VIEWS

LARGE = named(
    "resnet50",
    SupConConfig(scale="tau", views=SIMCLR_VIEWS),
    "in1k_350ep",
    epochs=350,
    batch_size=6144,
    optimizer=OptimizerConfig("lars", 0.4, weight_decay=1e-3, exclude_norm_and_bias=True, trust="update"),
    schedule=ScheduleConfig(warmup_epochs=12, per="step"),
    paper="SupCon (Khosla et al., 2020, https://arxiv.org/abs/2004.11362)",
    table="the authors' TensorFlow script",
    data="ImageNet-1k",
    result="78.8 top-1, linear (abstract of the paper's first version, with AutoAugment); here: not measured",
    not_stated="AutoAugment is not made here, SimCLR's views stand for it, so that the figure is of other views. "
    "The head is the paper's, of two layers; the script asks for one, on the pooled feature at length one. LARS "
    "leaves the head's two biases plain here; the script leaves BatchNorm plain alone. Initial weights follow this "
    "library.",
)

RECIPES = (
    LARGE,
    *(
        small(arch, SupConConfig(**widths), 128, CONTRASTIVE, images)
        for arch, widths in HEADS.items()
        for images in SETS
    ),
    *(own(arch, SupConConfig(**heads(arch)), contrastive(arch)) for arch in ARCHS),
)
