"""Every recipe there is."""

from __future__ import annotations

import json
from typing import Any

import pytest
import timm
import torch

from ssl_backbones import recipes
from ssl_backbones.methods import METHODS
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.registry import tags as table
from ssl_backbones.registry.names import Name

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


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("resnet8", "sample"))])
def test_a_small_recipe_builds_its_method(name: str):
    recipe = recipes.get(name)
    method = recipe.method.build(timm.create_model(recipe.model, num_classes=0))
    assert sum(parameter.numel() for parameter in method.backbone.parameters()) == 77_392
    assert any(parameter.requires_grad for parameter in method.parameters())


def test_big_heads_fit_their_backbone():
    for name in ("resnet50_lewel_b.in1k_100ep", "resnet50_lewel_m.in1k_100ep"):
        recipe = recipes.get(name)
        with torch.device("meta"):
            backbone = timm.create_model(recipe.model, num_classes=0)
            assert recipe.method.build(backbone).backbone is backbone


def test_every_registered_tag_has_its_recipe():
    assert {tag.name for tag in table.TAGS} >= set(NAMES) - {"sample"}
    for tag in table.TAGS:
        if tag.origin and tag.name not in NAMES:
            continue  # others' weights, which nothing here trains
        recipe = recipes.get(tag.name)
        assert recipe.model == tag.architecture
        assert recipe.epochs == tag.epochs
        assert recipe.promise.data == tag.data.name
        if tag.paper_number:
            assert str(tag.paper_number) in recipe.promise.result


def row(name: str) -> dict[str, Any]:
    """The settings of a recipe that the papers' tables and their code state."""
    recipe = recipes.get(name)
    return {
        "optimizer": recipe.optimizer.kind,
        "epochs": recipe.epochs,
        "batch": recipe.batch_size,
        "lr": round(recipe.peak_lr, 12),
        "decay": recipe.optimizer.weight_decay,
        "warmup": recipe.schedule.warmup_epochs,
        "per": recipe.schedule.per,
        "momentum": getattr(recipe.method, "target_momentum", None) or getattr(recipe.method, "momentum", None),
        "bn": getattr(recipe.method, "target_bn", None) or getattr(recipe.method, "key_bn", None),
    }


COLUMNS = ("optimizer", "epochs", "batch", "lr", "decay", "warmup", "per", "momentum", "bn")
STATED = {
    "resnet50_lewel_b.in1k_400ep": ("lars", 400, 4096, 7.2, 1e-6, 10, "epoch", 0.996, "sync"),
    "resnet50_lewel_b.in1k_200ep": ("lars", 200, 1024, 3.6, 1.5e-6, 10, "epoch", 0.98, "ema"),
    "resnet50_lewel_b.in1k_100ep": ("lars", 100, 1024, 3.6, 1e-6, 10, "epoch", 0.98, "ema"),
    "resnet50_lewel_b.in1k_400ep_sgd": ("sgd", 400, 512, 1.8, 1e-6, 10, "epoch", 0.98, "sync"),
    "resnet50_lewel_b.in1k_200ep_sgd": ("sgd", 200, 512, 1.8, 1e-6, 10, "epoch", 0.98, "ema"),
    "resnet50_lewel_b.in1k_100ep_sgd": ("sgd", 100, 512, 1.8, 1e-6, 10, "epoch", 0.98, "ema"),
    "resnet50_lewel_b.in100_240ep": ("lars", 240, 512, 3.6, 1e-6, 10, "epoch", 0.98, "ema"),
    "resnet50_lewel_m.in1k_200ep": ("sgd", 200, 256, 0.06, 1e-4, 0, "epoch", 0.999, "shuffle"),
    "resnet50_lewel_m.in1k_100ep": ("sgd", 100, 256, 0.06, 1e-4, 0, "epoch", 0.999, "shuffle"),
    "resnet50_lewel_m.in100_240ep": ("sgd", 240, 256, 0.12, 1e-4, 0, "epoch", 0.999, "shuffle"),
    "resnet50_moco_v2.in1k_800ep": ("sgd", 800, 256, 0.03, 1e-4, 0, "epoch", 0.999, "shuffle"),
    "resnet50_moco_v2.in1k_200ep": ("sgd", 200, 256, 0.03, 1e-4, 0, "epoch", 0.999, "shuffle"),
    "resnet50_moco_v2.in1k_100ep": ("sgd", 100, 256, 0.03, 1e-4, 0, "epoch", 0.999, "shuffle"),
    "resnet50_moco_v2.in100_240ep": ("sgd", 240, 256, 0.06, 1e-4, 0, "epoch", 0.999, "shuffle"),
    "resnet50_flags.in1k_200ep_global": ("sgd", 200, 256, 0.03, 1e-4, 0, "epoch", 0.999, "shuffle"),
    "resnet50_flags.in1k_200ep_global_local": ("sgd", 200, 256, 0.03, 1e-4, 0, "epoch", 0.999, "shuffle"),
    "resnet50_flags.in1k_200ep_moco": ("sgd", 200, 256, 0.03, 1e-4, 0, "epoch", 0.999, "shuffle"),
    "resnet50_byol.in1k_1000ep": ("lars", 1000, 4096, 3.2, 1.5e-6, 10, "step", 0.996, "sync"),
    "resnet50_byol.in1k_300ep": ("lars", 300, 4096, 4.8, 1e-6, 10, "step", 0.99, "sync"),
    "resnet50_byol.in1k_100ep_deepmind": ("lars", 100, 4096, 7.2, 1e-6, 10, "step", 0.99, "sync"),
    "resnet50_byol.in1k_40ep": ("lars", 40, 4096, 7.2, 1e-6, 10, "step", 0.97, "sync"),
    "resnet50_byol.in1k_200ep": ("lars", 200, 512, 1.8, 1e-6, 10, "epoch", 0.98, "ema"),
    "resnet50_byol.in1k_100ep": ("lars", 100, 512, 1.8, 1e-6, 10, "epoch", 0.98, "ema"),
    "resnet50_byol.in100_240ep": ("lars", 240, 512, 3.6, 1e-6, 10, "epoch", 0.98, "ema"),
    "resnet50_simclr.in1k_1000ep": ("lars", 1000, 4096, 4.8, 1e-6, 10, "step", None, None),
    "resnet50_simclr.in1k_400ep": ("lars", 400, 4096, 4.8, 1e-6, 10, "step", None, None),
    "resnet50_simclr.in1k_200ep": ("lars", 200, 4096, 4.8, 1e-6, 10, "step", None, None),
    "resnet50_supervised.in1k_90ep": ("sgd", 90, 256, 0.1, 1e-4, 0, "epoch", None, None),
    "resnet50_simclr.in1k_100ep": ("lars", 100, 4096, 4.8, 1e-6, 10, "step", None, None),
    "resnet50_simsiam.in1k_800ep": ("sgd", 800, 256, 0.05, 1e-4, 0, "epoch", None, None),
    "resnet50_simsiam.in1k_400ep": ("sgd", 400, 256, 0.05, 1e-4, 0, "epoch", None, None),
    "resnet50_simsiam.in1k_200ep": ("sgd", 200, 256, 0.05, 1e-4, 0, "epoch", None, None),
    "resnet50_simsiam.in1k_100ep": ("sgd", 100, 256, 0.05, 1e-4, 0, "epoch", None, None),
    "resnet50_barlow_twins.in1k_1000ep": ("lars", 1000, 2048, 1.6, 1.5e-6, 10, "step", None, None),
    "resnet50_vicreg.in1k_1000ep": ("lars", 1000, 2048, 1.6, 1e-6, 10, "step", None, None),
    "resnet50_vicreg.in1k_100ep": ("lars", 100, 512, 0.6, 1e-6, 10, "step", None, None),
}
STATED |= {  # LEWEL's ablations share the settings of the recipe that they alter
    name: STATED[name[: name.index("_240ep_")] + "_240ep"] for name in NAMES if "in100_240ep_" in name
}


@pytest.mark.parametrize("name", STATED)
def test_a_recipe_is_what_its_source_states(name: str):
    assert row(name) == dict(zip(COLUMNS, STATED[name], strict=True))


def test_every_large_recipe_is_held_to_its_source():
    assert {name for name in NAMES if name.startswith("resnet50")} == set(STATED)


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
