"""The papers' tables: whole, held to the recipes of their rows, and found by what an evaluation measured."""

from __future__ import annotations

import pytest

from ssl_backbones.recipes import RECIPES
from ssl_backbones.registry.tables import RANDOM, TABLES, Row, Table, figures_of, table_of

EVERY_ROW = [pytest.param(table, row, id=f"{table.name} {row.label}") for table in TABLES for row in table.rows]


@pytest.mark.parametrize(("table", "row"), EVERY_ROW)
def test_a_row_is_whole_and_its_recipe_exists(table: Table, row: Row) -> None:
    assert len(row.figures) == len(table.columns)
    assert all(figure is None or 0 < figure < 100 for figure in row.figures)
    assert row.recipe in RECIPES or RANDOM in row.recipe


def test_tables_are_found_by_their_names() -> None:
    assert len({table.name for table in TABLES}) == len(TABLES)
    assert all(table_of(table.name.upper()) is table for table in TABLES)
    assert table_of("lewel-99") is None


@pytest.mark.parametrize(
    ("recipe", "protocol", "number", "expected"),
    [
        ("resnet50_lewel_m.in1k_200ep", "linear (lewel_m)", "top-1", [68.4, 68.1]),
        ("resnet50_lewel_b.in1k_400ep", "semi (lewel_1pct)", "top-1", [59.8]),
        ("resnet50_lewel_b.in1k_400ep", "semi (lewel_10pct)", "top-1", [70.4]),
        ("resnet50_lewel_b.in100_240ep_c64_h4", "segmentation (voc_fcn_d8)", "miou", [61.8]),
        ("resnet50_moco_v2.in100_240ep_dim512", "linear (moco_v2)", "top-1", [80.2]),
        ("resnet50_flags.in1k_200ep_global", "detection (flags_coco)", "AP50", [57.852]),
        ("resnet50_flags.in1k_200ep_global", "detection (flags_coco)", "mask_AP75", [35.505]),
        ("resnet32_patch_rotnet.stl10_200ep_r50", "finetune (patch)", "top-1", [78.38]),
        (f"resnet8 ({RANDOM})", "linear (patch)", "top-1", [6.63, 26.66]),
        ("resnet50_lewel_b.in1k_400ep", "knn", "top-1", []),
        ("resnet18_byol.imagenette96_100ep", "linear (lewel_b)", "top-1", []),
    ],
)
def test_an_evaluation_finds_the_papers_figures(recipe: str, protocol: str, number: str, expected: list[float]) -> None:
    assert [figure.value for figure in figures_of(recipe, protocol, number)] == expected


def test_two_figures_of_one_network_are_both_told() -> None:
    told = [str(figure) for figure in figures_of("resnet50_lewel_m.in1k_200ep", "linear (lewel_m)", "top-1")]
    assert told == ["68.4 (LEWEL, Table 1, top-1)", "68.1 (LEWEL, Table 8, top-1, linear)"]
