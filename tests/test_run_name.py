"""A run on one's own images is named after its folder, and bears neither the name nor the terms of other images."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from test_card import RESULTS

from ssl_backbones.hub.card import model_card
from ssl_backbones.hub.run_name import run_name
from ssl_backbones.recipes import RECIPES
from ssl_backbones.registry.image_sets import DATA


def told(name: str, fingerprint: str | None, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A recipe and the results of its run on images of a fingerprint."""
    results = RESULTS | {"data": {"source": "cats", "images": 9, "fingerprint": fingerprint}}
    return RECIPES[name].to_dict() | {"data": "/data/me/my cats"} | fields, results


ONE_EACH = {(recipe.method.name, recipe.promise.data): name for name, recipe in RECIPES.items()}
"""A recipe of every method for each of the sets of images that it has recipes for."""


@pytest.mark.parametrize("name", ONE_EACH.values())
def test_a_run_on_own_images_has_a_name_of_its_own_and_no_terms(name: str) -> None:
    recipe, results = told(name, "0" * 64, out="/runs/of_cats")
    card = model_card(recipe, results)
    front = yaml.safe_load(card.split("---")[1])
    assert front["model-index"][0]["name"] == "of_cats"
    assert "\n# of_cats\n" in card
    assert f"as in the recipe {name}." in card
    assert "Of the images: not stated." in card
    licence = card.partition("## Licence")[2]
    assert [data.name for data in DATA if data.name in licence or f"terms are: {data.terms}" in licence] == []


@pytest.mark.parametrize("out", ["", "runs/{name}", "/elsewhere/{name}"])
def test_in_a_folder_that_is_called_by_the_recipe_the_images_give_the_name(out: str) -> None:
    for name, recipe in RECIPES.items():
        assert run_name(*told(name, "0" * 64, out=out.format(name=name))) == f"{recipe.model}.my_cats"


def test_the_recipes_own_images_keep_its_name() -> None:
    for name, recipe in RECIPES.items():
        own = [mark for data in DATA if data.name == recipe.promise.data for mark in data.fingerprints]
        for fingerprint in (*own, None):
            assert run_name(*told(name, fingerprint, out="runs/other")) == name


def test_somebodys_own_recipe_keeps_its_name() -> None:
    recipe, results = told("sample", "0" * 64, out="runs/other")
    assert run_name(recipe | {"name": "mine"}, results) == "mine"
