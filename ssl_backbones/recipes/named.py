"""Recipes by what tells them apart: a network, a method and a tag."""

from __future__ import annotations

from typing import Any

from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import Promise


def named(
    arch: str,
    method: MethodConfig,
    tag: str,
    *,
    epochs: int,
    paper: str,
    table: str,
    data: str,
    result: str,
    hardware: str = "not stated",
    hours: float | None = None,
    not_stated: str = "",
    **fields: Any,
) -> Recipe:
    """The recipe <arch>_<method>.<tag>, with what its source promises and with more fields of `Recipe`.

    ValueError where a value is none that its field takes, as of every recipe.
    """
    model = f"{arch}_{method.name}"
    promise = Promise(paper, table, data, epochs, hardware, hours, result, not_stated)
    return Recipe(name=f"{model}.{tag}", model=model, method=method, epochs=epochs, promise=promise, **fields)
