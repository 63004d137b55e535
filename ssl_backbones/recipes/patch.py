"""Patch RotNet, Patch RelNet and what they are compared with. Pham et al., 2021. https://arxiv.org/abs/2108.00475

Every row of Tables 1 and 2 that was trained. The row of random weights needs no recipe: every run measures its backbone
before the first step, and results.json keeps that as "before".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ssl_backbones.methods.deep_infomax import DeepInfoMaxConfig
from ssl_backbones.methods.deepcluster import DeepClusterConfig
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.methods.patch_relnet import PatchRelNetConfig
from ssl_backbones.methods.patch_rotnet import PatchRotNetConfig
from ssl_backbones.methods.rotnet import RotNetConfig
from ssl_backbones.methods.supervised import SupervisedConfig
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import OptimizerConfig, ScheduleConfig
from ssl_backbones.registry.tables import stated

PAPER = "Patch RotNet (Pham et al., 2021, https://arxiv.org/abs/2108.00475)"
EPOCHS = 200
SIZES = {"stl10": 96, "tiny": 64}
DATA = {"stl10": "STL-10, unlabelled", "tiny": "Tiny-ImageNet"}
CLASSES = {"stl10": 10, "tiny": 200}
TABLES = {"resnet8": "Table 1", "resnet32": "Table 2"}

OPEN = (
    "The paper states epochs and batch alone. Adam at 1e-3, held constant, and the augmentation are those of the code "
    "whose experiments it resembles (relational reasoning, Patacchiola and Storkey, 2020); images are normalised as "
    "ImageNet's are, which is what the backbone's configuration says, and not by that code's own constants."
)
ONCE = "One place for the four patches of an image, a resize without antialiasing, and one linear layer are readings."
GAME = "The prior is a game of two, where that code lets the encoder help the discriminator (method.prior=cooperative)."
CLEAN = (
    "Clusters are those of clean images, and weigh one over their size; that code clusters augmented images, trains on "
    "corrupted ones, and hardly weighs (method.weighting=complement)."
)
LABELS = (
    "The paper states nothing. SGD, a tenth of the rate from epochs 100 and 150 on, and a batch of 128 are those of "
    "the code whose experiments it resembles; on STL-10 that one also distorts and erases, which is left out here."
)

COLUMNS = (("resnet8", "tiny"), ("resnet8", "stl10"), ("resnet32", "stl10"))

ADAM = OptimizerConfig("adam", 1e-3, lr_rule="absolute", weight_decay=0.0)


def row(
    column: int,
    method: MethodConfig,
    not_stated: str = "",
    end: str = "",
    weight_decay: float = 0.0,
) -> Recipe:
    """The recipe of a method without labels in one column of the tables."""
    arch, data = COLUMNS[column]
    tag = f"{data}_{EPOCHS}ep{end}"
    figures = stated(f"{arch}_{method.name}.{tag}", "top-1, linear", "finetuned")
    return named(
        arch,
        method,
        tag,
        size=SIZES[data],
        epochs=EPOCHS,
        batch_size=64,
        optimizer=replace(ADAM, weight_decay=weight_decay),
        schedule=ScheduleConfig("constant"),
        paper=PAPER,
        table=TABLES[arch],
        data=DATA[data],
        result=f"{figures} (paper, one run each); here: not measured",
        not_stated=f"{OPEN} {not_stated}".strip(),
    )


def supervised(column: int) -> Recipe:
    """Training with labels in one column of the tables."""
    arch, data = COLUMNS[column]
    tag = f"{data}_{EPOCHS}ep"
    figure = stated(f"{arch}_supervised.{tag}", "top-1 of its own classifier")
    return named(
        arch,
        SupervisedConfig(classes=CLASSES[data]),
        tag,
        size=SIZES[data],
        epochs=EPOCHS,
        batch_size=128,
        optimizer=OptimizerConfig("sgd", 0.1, lr_rule="absolute", weight_decay=0.0),
        schedule=ScheduleConfig("step", milestones=(100, 150)),
        paper=PAPER,
        table=TABLES[arch],
        data="STL-10, labelled" if data == "stl10" else DATA[data],
        result=f"{figure} (paper, one run); here: not measured",
        not_stated=LABELS,
    )


def rows(column: int) -> Iterator[Recipe]:
    """All that was trained of one column."""
    clusters = 10 * CLASSES[COLUMNS[column][1]]
    yield supervised(column)
    yield row(column, DeepInfoMaxConfig(), GAME, weight_decay=1e-4)
    yield row(column, DeepClusterConfig(clusters=clusters), CLEAN)
    yield row(column, RotNetConfig())
    for kind in (PatchRelNetConfig, PatchRotNetConfig):
        for share in (30, 40, 50):
            yield row(column, kind(ratio=share / 100), ONCE, end=f"_r{share}")


RECIPES = tuple(recipe for column in (1, 0, 2) for recipe in rows(column))
