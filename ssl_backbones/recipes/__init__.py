"""Every recipe, one file per paper, found by being there: typed values named <arch>_<method>.<tag>."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.typed.docstrings import tell_fields
from ssl_backbones.typed.values import nearest

tell_fields(Recipe)

_MODULES = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]

RECIPES: dict[str, Recipe] = {recipe.name: recipe for module in _MODULES for recipe in vars(module).get("RECIPES", ())}
"""By name, those of one file together."""


def names() -> list[str]:
    """The name of every recipe, by paper."""
    return list(RECIPES)


def get(name: str) -> Recipe:
    """The recipe of a name; ValueError offers the nearest."""
    if name not in RECIPES:
        near = nearest(name, RECIPES)
        raise ValueError(f"{name!r} is not a recipe{near or '; --list shows all of them'}.")
    return RECIPES[name]
