"""LEWEL's ablations: which switch each turns, and that they are listed by table."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import timm

from ssl_backbones import recipes
from ssl_backbones.recipes import lewel_ablations
from ssl_backbones.recipes.command_line import listing
from ssl_backbones.weightless import weightless

TURNED: dict[str, dict[str, Any]] = {
    "lewel_m.in100_240ep_aligned_only": {"aligned_weight": 1.0},
    "lewel_m.in100_240ep_uncoupled": {"coupled_head": False},
    "lewel_m.in100_240ep_extra_head": {"alignment": "uniform", "coupled_head": False, "groups": 128},
    "lewel_m.in100_240ep_random": {"alignment": "random", "coupled_head": False},
    "lewel_m.in100_240ep_shared_head": {"semantic_head": "shared"},
    "moco_v2.in100_240ep_dim256": {"projection_dim": 256},
    "moco_v2.in100_240ep_dim512": {"projection_dim": 512},
    "lewel_b.in100_240ep_c256_h1": {"groups": 1},
    "lewel_b.in100_240ep_c256_h2": {"groups": 2},
    "lewel_b.in100_240ep_c256_h8": {"groups": 8},
    "lewel_b.in100_240ep_c256_h16": {"groups": 16},
    "lewel_b.in100_240ep_c512_h4": {"projection_dim": 512, "aligned_dim": 512},
    "lewel_b.in100_240ep_c128_h4": {"projection_dim": 128, "aligned_dim": 128},
    "lewel_b.in100_240ep_c64_h4": {"projection_dim": 64, "aligned_dim": 64},
    "lewel_m.in100_240ep_share0": {"aligned_weight": 0.0},
    "lewel_m.in100_240ep_share25": {"aligned_weight": 0.25},
    "lewel_m.in100_240ep_share75": {"aligned_weight": 0.75},
    "lewel_m.in100_240ep_d64": {"aligned_dim": 64},
    "lewel_m.in100_240ep_d256": {"aligned_dim": 256},
    "lewel_m.in100_240ep_d512": {"aligned_dim": 512},
}


def test_every_ablation_is_held_to_its_switch() -> None:
    assert {recipe.name.removeprefix("resnet50_") for recipe in lewel_ablations.RECIPES} == set(TURNED)


@pytest.mark.parametrize("name", TURNED)
def test_an_ablation_turns_its_switch_and_no_other(name: str) -> None:
    recipe = recipes.get(f"resnet50_{name}")
    base = recipes.get(recipe.name[: recipe.name.index("_240ep_")] + "_240ep")
    before, after = (dataclasses.asdict(run.method) for run in (base, recipe))
    assert {field: value for field, value in after.items() if value != before[field]} == TURNED[name]
    same = {"name": base.name, "method": base.method, "promise": base.promise}
    assert dataclasses.replace(recipe, **same) == base  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TURNED)
def test_an_ablation_fits_its_backbone(name: str) -> None:
    recipe = recipes.get(f"resnet50_{name}")
    with weightless():
        assert recipe.method.build(timm.create_model(recipe.model, num_classes=0)) is not None


def test_the_list_shows_every_row_of_the_tables() -> None:
    lines = [line for line in listing().splitlines() if "in100_240ep" in line]
    shown = {table: sum(f" {table}" in line for line in lines) for table in ("Table 5", "Table 6", "Table 7", "Fig. 3")}
    assert shown == {"Table 5": 4, "Table 6": 5, "Table 7": 9, "Fig. 3": 6}
    for figure in ("79.5", "80.0", "81.0", "82.1", "79.9", "81.8", "79.8", "82.6", "83.3", "83.1", "82.9", "84.8"):
        assert any(figure in line for line in lines), figure
