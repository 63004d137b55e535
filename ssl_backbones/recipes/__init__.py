"""Every recipe, one file per paper: typed values named <arch>_<method>.<tag>."""

from __future__ import annotations

from ssl_backbones.recipes import (
    barlow_twins,
    byol,
    flags,
    imagenette,
    lewel,
    lewel_ablations,
    moco_v2,
    patch,
    sample,
    shipped,
    simclr,
    simsiam,
    small_images,
    small_joint_embedding,
    supervised,
    vicreg,
)
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.typed.values import nearest

MODULES = (
    sample,
    byol,
    moco_v2,
    flags,
    imagenette,
    lewel,
    lewel_ablations,
    simclr,
    simsiam,
    barlow_twins,
    vicreg,
    small_images,
    small_joint_embedding,
    patch,
    supervised,
    shipped,
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for module in MODULES for recipe in module.RECIPES}


def names() -> list[str]:
    """The name of every recipe, by paper."""
    return list(RECIPES)


def get(name: str) -> Recipe:
    """The recipe of a name; ValueError offers the nearest."""
    if name not in RECIPES:
        near = nearest(name, RECIPES)
        raise ValueError(f"{name!r} is not a recipe{near or '; --list shows all of them'}.")
    return RECIPES[name]
