"""The channels of a run's images: their statistics, measured once and kept, and the views that go with them."""

from __future__ import annotations

from dataclasses import replace

from ssl_backbones.data import Images
from ssl_backbones.data.statistics import Statistics, measured
from ssl_backbones.distributed import first_decides, say
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.train.claiming import recipe_there


def with_statistics(recipe: Recipe, images: Images) -> Recipe:
    """The recipe with the statistics of its data, where it asks for them, alike in all processes.

    Those of an earlier run of it in the same folder are kept.
    """
    if not measures(recipe):
        return recipe
    kept = first_decides(lambda: statistics_kept(recipe))
    found = kept or first_decides(lambda: measured(images, recipe.seed))
    say(f"Channels are normalized with {found}{', kept from the run' if kept else ''}.")
    return replace(recipe, measured=found)


def measures(recipe: Recipe) -> bool:
    """True if a recipe asks for the statistics of its data."""
    return recipe.statistics == "data" or (recipe.statistics == "auto" and bool(recipe.in_chans))


def statistics_kept(recipe: Recipe) -> Statistics | None:
    """The statistics that the recipe's run in its folder began with; None where there is none that has trained."""
    there = recipe_there(recipe)
    if there is None or (there.name, there.in_chans, there.seed) != (recipe.name, recipe.in_chans, recipe.seed):
        return None
    return there.measured


def views_in_channels(recipe: Recipe) -> str:
    """The sentence on the views of images with channels of their own."""
    left = ", without saturation, hue, grey and solarize (--views channels)" if recipe.views == "channels" else ""
    return f"Views by Pillow in floats, all {recipe.in_chans} channels with all of their bits{left}."
