"""SimCLR. Chen et al., 2020. https://arxiv.org/abs/2002.05709"""

from __future__ import annotations

from ssl_backbones.methods.simclr import SimCLRConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import OptimizerConfig, ScheduleConfig
from ssl_backbones.registry.tables import stated

SIMCLR = "SimCLR (Chen et al., 2020, https://arxiv.org/abs/2002.05709)"


def simclr(epochs: int, table: str, result: str, hours: float, not_stated: str) -> Recipe:
    """SimCLR at the batch of the paper's section 2.4."""
    return named(
        "resnet50",
        SimCLRConfig(),
        f"in1k_{epochs}ep",
        epochs=epochs,
        batch_size=4096,
        optimizer=OptimizerConfig("lars", 0.3, weight_decay=1e-6, exclude_norm_and_bias=True, trust="update"),
        schedule=ScheduleConfig(warmup_epochs=10, per="step"),
        paper=SIMCLR,
        table=table,
        data="ImageNet-1k",
        hardware="128 TPU v3 cores",
        hours=hours,
        result=result,
        not_stated=not_stated,
    )


HEAD = (
    "The normalised head and what LARS leaves plain follow the authors' code, which adds the losses of the two views; "
    "here it is the paper's mean, so that what is left plain moves half as far. Initial weights follow this library."
)

RECIPES = (
    simclr(
        1000,
        "Table 6",
        f"{stated('resnet50_simclr.in1k_1000ep', 'top-1, linear')} (paper); here: not measured",
        15.0,
        f"{HEAD} The hours are ten times those of 100 epochs.",
    ),
    *(
        simclr(
            epochs,
            "LEWEL (Huang et al., 2022), Table 1",
            "no figure recorded; here: not measured",
            1.5 * epochs / 100,
            f"{HEAD} The hours are those of 100 epochs, by the epoch.",
        )
        for epochs in (400, 200)
    ),
    simclr(100, "section 2.4", "about 64.5 top-1, linear (authors' code); here: not measured", 1.5, HEAD),
)
