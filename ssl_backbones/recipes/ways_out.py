"""The ways out of a recipe that does not fit the images or the machine: take one's own, or make it fit."""

from __future__ import annotations

from ssl_backbones.recipes.facts import arch_of, has
from ssl_backbones.recipes.own import ARCHS, FEWEST, RECIPES, TAG
from ssl_backbones.recipes.recipe import Recipe, Run
from ssl_backbones.recipes.rules import power_of_two
from ssl_backbones.registry.backbones import SMALL


def ways_out(recipe: Recipe, images: int) -> str:
    """The ways out of a batch larger than the data: the recipe for one's own images, or words that make it fit."""
    if images < FEWEST or recipe.derived:
        return f"set the batch size to at most {images}, or add images"
    batch = power_of_two(images // 2)
    words = f"--batch_size {batch}"
    if has(recipe.method, "queue_size") and recipe.method.compares_images:
        words += f" --method.queue_size {power_of_two(images - batch)}"
    carried = " (the learning rate goes along)" if recipe.optimizer.lr_rule == "per 256" else ""
    return f"{take_own(recipe)}, or make this one fit: {words}{carried}"


def take_own(run: Run) -> str:
    """The recipe for one's own images that stands nearest to a run, with what it is; empty where the run is one."""
    if not isinstance(run, Recipe) or run.derived:
        return ""
    arch = arch_of(run)
    nearest = arch if arch in ARCHS else "resnet8" if arch in SMALL else "resnet50"
    method = run.method.name if any(recipe.method.name == run.method.name for recipe in RECIPES) else "byol"
    return f"take {nearest}_{method}.{TAG}, whose settings follow from the images and the machine"
