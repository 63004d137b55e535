"""Pretrain a backbone without labels, by a recipe.

Examples:
    ssl-backbones pretrain
    ssl-backbones pretrain --list
    ssl-backbones pretrain resnet50_lewel_b.in1k_400ep --data /data/imagenet/train --out runs/lewel_b
    ssl-backbones pretrain resnet18_byol.imagenette96_100ep --data images --epochs 50 --optimizer.lr 0.1

Without a recipe, the sample recipe runs on the images that ship with the repository; --list shows all recipes, and the
options are the fields of the one that is named, with its values. The same command goes on with a run that was stopped.
Several processes: accelerate launch -m ssl_backbones pretrain ...
"""

from __future__ import annotations

from collections.abc import Sequence

from ssl_backbones.recipes.command_line import read_recipe
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.train.pretrain import pretrain


def parse(words: Sequence[str], program: str) -> Recipe:
    """The recipe that the words name and alter."""
    return read_recipe(words, program, __doc__)


def run(recipe: Recipe) -> None:
    """Run a recipe to its end, from where it was left."""
    pretrain(recipe)
