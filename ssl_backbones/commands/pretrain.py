"""Pretrain a backbone without labels, by a recipe.

Examples:
    ssl-backbones pretrain
    ssl-backbones pretrain --list
    ssl-backbones pretrain resnet50_lewel_b.in1k_400ep --data /data/imagenet/train --out runs/lewel_b
    ssl-backbones pretrain resnet18_byol.own --data images --epochs 50 --optimizer.lr 0.1
    ssl-backbones pretrain resnet18_distilled.own --data photos --cache cache --reencode 256
    ssl-backbones pretrain resnet18_byol.own --data images --dry_run

Without a recipe, the sample recipe runs on the images that ship with the repository; --list shows all recipes, and the
options are the fields of the one that is named, with its values. The same command goes on with a run that was stopped.
--dry_run times a few steps, tells the hours, the memory and the disk that the run would take, and writes nothing.
Several processes: accelerate launch -m ssl_backbones pretrain ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ssl_backbones.distributed import say
from ssl_backbones.recipes.command_line import read_recipe
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.train.forecast import dry_run
from ssl_backbones.train.pretrain import pretrain

DRY = ("--dry_run", "--dry-run")


@dataclass(frozen=True)
class DryRun:
    """A recipe that is to be told the cost of, and not to be run."""

    recipe: Recipe


def parse(words: Sequence[str], program: str) -> Recipe | DryRun:
    """The recipe that the words name and alter."""
    recipe = read_recipe([word for word in words if word not in DRY], program, __doc__)
    return DryRun(recipe) if set(DRY) & set(words) else recipe


def run(asked: Recipe | DryRun) -> None:
    """Run a recipe to its end, from where it was left; or tell its cost."""
    if isinstance(asked, DryRun):
        say(f"Forecast: {dry_run(asked.recipe)}.")
    else:
        pretrain(asked)
