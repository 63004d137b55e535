"""SimSiam. Chen and He, 2021. https://arxiv.org/abs/2011.10566"""

from __future__ import annotations

from ssl_backbones.methods.simsiam import SimSiamConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import OptimizerConfig

SIMSIAM = "SimSiam (Chen and He, 2021, https://arxiv.org/abs/2011.10566)"


def simsiam(epochs: int, accuracy: float) -> Recipe:
    """A row of the paper's comparison: batch 256, and a predictor whose rate is not decayed."""
    return named(
        "resnet50",
        SimSiamConfig(),
        f"in1k_{epochs}ep",
        epochs=epochs,
        batch_size=256,
        optimizer=OptimizerConfig("sgd", 0.05, weight_decay=1e-4, constant_part="predictor"),
        paper=SIMSIAM,
        table="Table 4",
        data="ImageNet-1k",
        hardware="8 GPUs",
        result=f"{accuracy} top-1, linear (paper); here: not measured",
        not_stated="That the cosine moves by the epoch; the heads' layers have no biases here, and initial weights "
        "follow this library.",
    )


RECIPES = (simsiam(800, 71.3), simsiam(400, 70.8), simsiam(200, 70.0), simsiam(100, 68.1))
