"""Views turned by quarters, for images without an upright: in every method that can, by the rules, and on resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runs import image_folder, run, tiny
from small_methods import CONFIGS, small_method

from ssl_backbones import recipes
from ssl_backbones.methods import BYOLConfig, MethodConfig, SupervisedConfig
from ssl_backbones.recipes.channels import shown
from ssl_backbones.recipes.command_line import read_recipe
from ssl_backbones.recipes.facts import Facts
from ssl_backbones.recipes.own import settled
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.runs.run_folder import RunFolderError
from ssl_backbones.views import SUPERVISED_VIEW

PLACED = {"pixpro", "resim", "vicregl"}
"""Methods that are told the places of their views in the image."""


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.name)
def test_every_method_has_turned_views_or_refuses_them(kind: type[MethodConfig], tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data", 8)
    plain = tiny(kind, data, tmp_path / "out").method
    if not plain.policies:
        with pytest.raises(ValueError, match=r"turns is 0\.75, but must be 0 \(leave it out\), as .* has none"):
            tiny(kind, data, tmp_path / "out", turns=0.75)
        return
    recipe = tiny(kind, data, tmp_path / "out", turns=0.75)
    turned = shown(recipe.method, recipe)
    assert turned.policies == tuple(replace(policy, turn_p=0.75) for policy in plain.policies)
    method = small_method(kind, views=turned.policies[:2] if len(plain.policies) > 1 else turned.policies)
    if kind.name in PLACED:
        with pytest.raises(ValueError, match=r"turn_p is 0\.75, but has to be 0 .*: leave out --turns"):
            method.transform(16)
    else:
        assert "turn_p=0.75" in repr(method.transform(16))


def test_the_view_of_training_with_labels_is_turned_too(tmp_path: Path) -> None:
    recipe = tiny(SupervisedConfig, tmp_path, tmp_path / "out", {"views": SUPERVISED_VIEW}, turns=0.5)
    assert shown(recipe.method, recipe).policies == (replace(SUPERVISED_VIEW, turn_p=0.5),)


@pytest.mark.parametrize("turns", [-0.1, 1.5])
def test_a_share_that_there_is_not_is_refused(turns: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"turns is {turns}, but must be from 0 to 1"):
        tiny(BYOLConfig, tmp_path, tmp_path / "out", turns=turns)


@pytest.mark.parametrize("name", ["resnet18_byol.own", "resnet18_moco_v2.own", "resnet18_swav.own"])
def test_turns_leave_the_views_to_the_rules(name: str) -> None:
    recipe = read_recipe([name, "--data", "x", "--turns", ".75"], "pretrain", None)
    found = settled(replace(recipe, method=shown(recipe.method, recipe)), Facts(3000, 64, 80e9, gpu=True))
    assert found.size == 64
    assert {(policy.blur_p, policy.turn_p) for policy in found.method.policies} == {(0.0, 0.75)}


def without(plain: Any, names: set[str]) -> Any:
    """Plain data without some fields, however deep they lie."""
    if isinstance(plain, dict):
        return {name: without(value, names) for name, value in plain.items() if name not in names}
    return [without(item, names) for item in plain] if isinstance(plain, list) else plain


@pytest.mark.parametrize("name", ["resnet8_byol.own", "resnet50_dino.in1k_100ep", "resnet50_supervised.in1k_90ep"])
def test_a_recipe_from_before_there_were_turns_is_the_same(name: str) -> None:
    recipe = recipes.get(name)
    old = without(recipe.to_dict(), {"turns", "turn_p"})
    assert "turn" not in json.dumps(old["method"])
    assert Recipe.from_dict(old) == recipe
    assert recipe.completed(old) == recipe.to_dict()


def test_a_run_keeps_its_turns(tmp_path: Path) -> None:
    recipe = tiny(BYOLConfig, image_folder(tmp_path / "data"), tmp_path / "out", turns=0.75, max_steps=1)
    folder = run(recipe)
    written = Recipe.from_dict(json.loads(folder.recipe.read_text()))
    assert {policy.turn_p for policy in written.method.policies} == {written.turns} == {0.75}
    with pytest.raises(RunFolderError, match="turns"):
        run(replace(recipe, turns=0.0))
