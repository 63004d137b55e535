"""Every recipe there is."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import timm

from ssl_backbones import recipes
from ssl_backbones.methods import METHODS
from ssl_backbones.recipes.instdisc import GREY_FIRST
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import LR_AFTER
from ssl_backbones.recipes.swav import OPENCV
from ssl_backbones.registry.names import Name
from ssl_backbones.registry.paper_table import Row, Table
from ssl_backbones.registry.tables import OWN, TABLES
from ssl_backbones.registry.tags import TAGS, Tag
from ssl_backbones.views import Policy
from ssl_backbones.weightless import weightless

NAMES = recipes.names()


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_whole(name: str):
    recipe = recipes.get(name)
    assert recipe.name == name
    assert type(recipe.method) is METHODS[Name.parse(recipe.model).method]
    assert name == "sample" or Name.parse(name).model == recipe.model
    assert timm.is_model(recipe.model)
    assert recipe.promise.epochs == recipe.epochs
    assert all((recipe.promise.paper, recipe.promise.table, recipe.promise.data, recipe.promise.result))
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def unlike(names: list[str]) -> list[str]:
    """The names without those of recipes whose network and method are another's."""
    found = {(recipe.model, repr(recipe.method)): recipe.name for recipe in map(recipes.get, reversed(names))}
    return [name for name in names if name in found.values()]


@pytest.mark.parametrize("name", unlike([name for name in NAMES if name.startswith(("resnet8", "sample"))]))
def test_a_small_recipe_builds_its_method(name: str):
    recipe = recipes.get(name)
    method = recipe.method.build(timm.create_model(recipe.model, num_classes=0))
    assert sum(parameter.numel() for parameter in method.backbone.parameters()) == 77_392
    assert any(parameter.requires_grad for parameter in method.parameters())


def test_big_heads_fit_their_backbone():
    for name in ("resnet50_lewel_b.in1k_100ep", "resnet50_lewel_m.in1k_100ep"):
        recipe = recipes.get(name)
        with weightless():
            backbone = timm.create_model(recipe.model, num_classes=0)
            assert recipe.method.build(backbone).backbone is backbone


@pytest.mark.parametrize("tag", [tag for tag in TAGS if tag.name in NAMES], ids=lambda tag: tag.name)
def test_weights_are_those_of_the_recipe_of_their_name(tag: Tag):
    recipe = recipes.get(tag.name)
    assert (recipe.model, recipe.epochs, recipe.size) == (tag.architecture, tag.epochs, tag.size or 224)
    assert recipe.promise.data == tag.data.name


def test_weights_without_a_recipe_are_others():
    assert all(tag.origin for tag in TAGS if tag.name not in NAMES)


HOW = {"linear": ", linear", OWN: f" of {OWN}"}
"""The beginning of a promise, by the protocol that a figure is of."""


def promised(table: Table, row: Row) -> str | None:
    """The words that a row's promise begins with; None where the table has no such figure of it."""
    figures = [figure for figure in table.figures if figure.row is row]
    found = (
        f"{figure.value} top-1{HOW[kind]}" for figure in figures for kind in HOW if figure.protocol.startswith(kind)
    )
    return next(found, None)


COMPARED = [
    pytest.param(row.recipe, words, id=f"{table.name}-{row.recipe}")
    for table in TABLES
    for row in table.rows
    if row.recipe in NAMES and table.name != "lewel-8" and (words := promised(table, row)) is not None
]
"""The recipes of tables with what they promise; LEWEL's Table 8 is of another run."""


@pytest.mark.parametrize(("name", "words"), COMPARED)
def test_a_promise_is_the_figure_of_the_paper_s_table(name: str, words: str):
    assert recipes.get(name).promise.result.startswith(words)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ("73.8 top-1, linear, ImageNet-1k (paper); here: not measured", 73.8),
        ("80 top-1, linear", 80.0),
        ("about 64.5 top-1, linear (authors' code)", None),
        ("73.8 top-1 of its own classifier", None),
        ("80.0 top-1, linearly", None),
        ("not measured", None),
    ],
)
def test_a_promise_tells_the_accuracy_by_linear_evaluation(result: str, expected: float | None):
    assert replace(recipes.get("sample").promise, result=result).linear_top1 == expected


def row(name: str) -> dict[str, Any]:
    """The settings of a recipe that the papers' tables and their code state."""
    recipe = recipes.get(name)
    optimizer, schedule = recipe.optimizer, recipe.schedule
    norm = "norm" if optimizer.exclude_head_norm else "norm of the backbone"
    return {
        "optimizer": optimizer.kind,
        "epochs": recipe.epochs,
        "hours": recipe.promise.hours,
        "batch": recipe.batch_size,
        "hold_out": recipe.hold_out,
        "lr": round(recipe.peak_lr, 12),
        "decay": optimizer.weight_decay,
        "warmup": schedule.warmup_epochs,
        "per": schedule.per,
        "plain": f"{norm}, bias" if optimizer.exclude_norm_and_bias else "nothing",
        "plain_lr": optimizer.norm_and_bias_lr,
        "trust": optimizer.trust if optimizer.kind == "lars" else None,
        "constant_part": optimizer.constant_part,
        "clip": optimizer.clip and [optimizer.clip, optimizer.clip_per],
        "start_share": round(schedule.start_share, 12),
        "end_share": round(schedule.end_share, 12),
        "views": [[*view.area, view.interpolation, view.blur_p, view.solarize_p] for view in policies(recipe.method)],
        "otherwise": [what for what, words in OTHERWISE.items() if words in recipe.promise.not_stated],
        "whose": re.findall(r"\(([^()]+)\)", recipe.promise.result),
        "momentum": getattr(recipe.method, "target_momentum", None) or getattr(recipe.method, "momentum", None),
        "bn": getattr(recipe.method, "target_bn", None) or getattr(recipe.method, "key_bn", None),
    }


OTHERWISE = {"lr after momentum": LR_AFTER, "grey first": GREY_FIRST, "blur by OpenCV": OPENCV}
"""Deviations of recipes from their sources, and the words that tell of them."""


def policies(method: Any) -> list[Policy]:
    """The views that a method makes of an image; its small crops count as one."""
    large = (method.views,) if isinstance(method.views, Policy) else method.views
    return [*large, *([method.crop] if getattr(method, "crops", 0) else [])]


STATED: dict[str, dict[str, dict[str, Any]]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((Path(__file__).parent / "stated").glob("*.json"))
}
"""The settings as papers, their code and their logs state them, by file of recipes and name of recipe."""
SILENT: dict[str, Any] = {"hold_out": 0, "hours": None, "otherwise": []}
"""The values that hold where a source says nothing of it."""
BASES = {name: stated for rows in STATED.values() for name, stated in rows.items()}
ALTERED = {  # LEWEL's ablations share the settings of the recipe that they alter
    name: BASES[name[: name.index("_240ep_")] + "_240ep"] for name in NAMES if "in100_240ep_" in name
}


@pytest.mark.parametrize("name", BASES | ALTERED)
def test_a_recipe_is_what_its_source_states(name: str):
    stated, found = SILENT | (BASES | ALTERED)[name], row(name)
    compared = found.keys() - {"whose"} if name in ALTERED else found.keys()  # of which few have a figure
    assert {key: found[key] for key in compared} == {key: stated[key] for key in compared}
    assert stated.keys() - found.keys() <= {"gradient"}


@pytest.mark.parametrize("name", [name for name in NAMES if "mine-pairs" in recipes.get(name).promise.not_stated])
def test_pairs_are_mined_of_the_images_that_are_trained_on(name: str):
    recipe = recipes.get(name)
    assert (f"--hold_out {recipe.hold_out}" in recipe.promise.not_stated) == bool(recipe.hold_out)


@pytest.mark.parametrize("file", STATED)
def test_every_large_recipe_of_a_paper_is_held_to_it(file: str):
    found = import_module(f"ssl_backbones.recipes.{file}").RECIPES
    large = {recipe.name for recipe in found if recipe.name.startswith("resnet50")}
    assert {name for name in large if not name.endswith(".own")} == set(STATED[file])


def test_what_is_decayed_follows_the_log_the_code_and_moco():
    excluded = {name: recipes.get(name).optimizer for name in NAMES}
    log, code = excluded["resnet50_lewel_b.in1k_100ep"], excluded["resnet50_lewel_b.in1k_200ep"]
    assert (log.exclude_norm_and_bias, log.exclude_head_norm) == (True, False)
    assert (code.exclude_norm_and_bias, code.exclude_head_norm) == (True, True)
    assert not excluded["resnet50_moco_v2.in1k_200ep"].exclude_norm_and_bias
    assert excluded["resnet50_byol.in1k_1000ep"].trust == "update"


def test_an_unknown_recipe_offers_the_nearest():
    with pytest.raises(ValueError, match=r"^'resnet50_lewl_b.in1k_400ep' is not a recipe.*resnet50_lewel_b.in1k_400ep"):
        recipes.get("resnet50_lewl_b.in1k_400ep")
    with pytest.raises(ValueError, match=r"--list"):
        recipes.get("qqqqqq")
