"""The papers' tables: whole, held to the recipes of their rows, and found by what an evaluation measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ssl_backbones.commands import main
from ssl_backbones.commands.tables import NoFolderError, measured, read
from ssl_backbones.evaluate.classification.labelled_run import LabelledRun
from ssl_backbones.evaluate.protocols import finetune, linear, semi
from ssl_backbones.recipes import RECIPES
from ssl_backbones.registry import image_sets
from ssl_backbones.registry.image_sets import DATA, Data
from ssl_backbones.registry.paper_table import Row, Table
from ssl_backbones.registry.tables import OWN, RANDOM, TABLES, figures_of, table_of
from ssl_backbones.runs.papers_figures import papers_figures
from ssl_backbones.runs.results import write_results

PRESETS = [preset for task in (finetune, linear, semi) for preset in task.PRESETS.values()]
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
        ("resnet50_lewel_b.in1k_400ep", "semi (lewel_1pct)", "top-1, best of every 5 epochs", [59.8]),
        ("resnet50_lewel_b.in1k_400ep", "semi (lewel_1pct)", "top-1", []),
        ("resnet50_lewel_b.in1k_400ep", "linear (lewel_b)", "top-1, best of every 5 epochs", [73.8]),
        ("resnet50_lewel_b.in1k_400ep", "linear (lewel_b)", "top-1", []),
        ("resnet50_lewel_b.in1k_400ep", "semi (lewel_10pct)", "top-1, best of every 5 epochs", [70.4]),
        ("resnet50_lewel_m.in100_240ep", "linear (moco_v2)", "top-1", [82.1, 82.1]),
        ("resnet50_lewel_m.in100_240ep", "linear probe on cached features", "top-1", []),
        ("resnet50_lewel_b.in100_240ep_c64_h4", "segmentation (voc_fcn_d8)", "miou", [61.8]),
        ("resnet50_moco_v2.in100_240ep_dim512", "linear (moco_v2)", "top-1", [80.2]),
        ("resnet50_flags.in1k_200ep_global", "detection (flags_coco)", "AP50", [57.852]),
        ("resnet50_flags.in1k_200ep_global", "detection (flags_coco)", "mask_AP75", [35.505]),
        ("resnet32_patch_rotnet.stl10_200ep_r50", "finetune (patch)", "top-1", [78.38]),
        ("resnet8_supervised.stl10_200ep", "linear (patch)", "top-1", []),
        ("resnet50_supervised.in1k_90ep", "linear (moco_v2)", "top-1", []),
        (f"resnet8 ({RANDOM})", "linear (patch)", "top-1", [6.63, 26.66]),
        ("resnet50_lewel_b.in1k_400ep", "knn", "top-1", []),
        ("resnet18_byol.imagenette96_100ep", "linear (lewel_b)", "top-1", []),
    ],
)
def test_an_evaluation_finds_the_papers_figures(recipe: str, protocol: str, number: str, expected: list[float]) -> None:
    assert [figure.value for figure in figures_of(recipe, protocol, number)] == expected


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.protocol)
def test_a_figure_stands_beside_the_number_that_its_source_reports(preset: LabelledRun) -> None:
    reported = {"last": "", "best": f" best of every {preset.judge_every} epochs"}[preset.source_reports]
    figures = (figure for table in TABLES for figure in table.figures if figure.protocol == preset.protocol)
    assert {figure.number.partition(",")[2] for figure in figures} == {reported}


def test_two_figures_of_one_network_are_both_told() -> None:
    told = [str(figure) for figure in figures_of("resnet50_lewel_m.in1k_200ep", "linear (lewel_m)", "top-1")]
    assert told == [
        "68.4 (LEWEL, Table 1: Linear evaluation on ImageNet-1k of a ResNet-50; top-1)",
        "68.1 (LEWEL, Table 8: LEWEL_M at 200 epochs of ImageNet-1k; top-1, linear)",
    ]


def results_of_a_probe(model: str, **more: Any) -> dict[str, Any]:
    numbers = {"top-1": {"value": 0.651, "low": 0.647, "high": 0.655}, "top-5": {"value": 0.87}}
    return {"protocol": "linear (patch)", "model": model, "numbers": numbers, "settings": {}} | more


def test_an_evaluation_says_and_keeps_the_papers_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = write_results(tmp_path, results_of_a_probe("resnet32_rotnet.stl10_200ep"))
    figure = "52.25 (Patch, Table 2: ResNet-32 on STL-10; linear)"
    assert written["papers"] == {"top-1": [figure]}
    assert capsys.readouterr().out == f"The paper's top-1, on its own images: {figure}\n"
    assert json.loads((tmp_path / "results.json").read_text())["papers"] == {"top-1": [figure]}


@pytest.mark.parametrize("more", [{"altered": {"epochs": [100, 1]}}, {"model": "resnet8_byol"}, {"protocol": "knn"}])
def test_none_is_told_where_it_is_of_something_else(tmp_path: Path, more: dict[str, Any]) -> None:
    assert "papers" not in write_results(tmp_path, results_of_a_probe("resnet32_rotnet.stl10_200ep") | more)


@pytest.mark.parametrize(("altered", "expected"), [({}, 1), ({"epochs": [200, 3]}, 0)])
def test_a_runs_folder_stands_for_its_recipe(tmp_path: Path, altered: dict[str, Any], expected: int) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps({"name": "resnet32_rotnet.stl10_200ep"}))
    (tmp_path / "results.json").write_text(json.dumps({"altered": altered}))
    assert len(list(papers_figures(results_of_a_probe(str(tmp_path))))) == expected


ALTERED = {"accumulation": [1, 2], "precision": ["auto", "fp32"]}


@pytest.mark.parametrize(
    ("of_the_run", "of_the_results", "reason"),
    [
        (ALTERED, {}, "differs from resnet32_rotnet.stl10_200ep in accumulation (2 instead of 1), precision (fp32 "),
        ({}, {"altered": ALTERED}, "the evaluation differs from linear (patch) in accumulation (2 instead of 1)"),
        ({}, {"settings": {"init": "resnet32.a"}}, "the weights are those of --init resnet32.a"),
        ({}, {"data": {"fingerprint": "theirs"}}, "it is of Elsewhere, and the table of STL-10"),
        ({}, {}, ""),
        (ALTERED, {"protocol": "knn"}, ""),
    ],
)
def test_results_that_are_left_out_are_told_with_the_reason(
    of_the_run: dict[str, Any],
    of_the_results: dict[str, Any],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, found = tmp_path / "run", tmp_path / "results" / "probe"
    for folder, name, content in (
        (run, "recipe.json", {"name": "resnet32_rotnet.stl10_200ep"}),
        (run, "results.json", {"altered": of_the_run}),
        (found, "results.json", results_of_a_probe(str(run), **of_the_results)),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    monkeypatch.setattr(image_sets, "DATA", (Data("Elsewhere", "", fingerprints=("theirs",)),))
    assert main(["tables", "patch-2", "--results", str(tmp_path / "results")]) == 0
    said = capsys.readouterr().out
    assert (f"{found} is not in the table: " in said, reason in said) == (bool(reason), True)
    assert (" 65.1 " in said) == (not reason and not of_the_results)


def test_random_weights_have_a_row_of_their_own() -> None:
    found = papers_figures(results_of_a_probe("resnet32_rotnet", random_weights=True))
    assert [figure.value for _, figure in found] == [27.19]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_ours_stands_beside_figures_of_the_same_images(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurable = [figure for figure in table.figures if figure.row.recipe and figure.protocol not in ("", OWN)]
    assert all(figure.column.images for figure in measurable)
    for figure in measurable[:2]:
        row, column = figure.row, figure.column
        made = {"model": row.recipe, "protocol": figure.protocol, "settings": {}}
        made["numbers"] = {figure.number: {"value": 0.5}}
        if RANDOM in row.recipe:
            made |= {"model": row.recipe.partition(" ")[0], "random_weights": True}

        def cell(
            fingerprint: str, made: dict[str, Any] = made, key: Any = (table, row.label, column.name)
        ) -> str | None:
            about = {"source": "photos/mine", "images": 3, "fingerprint": fingerprint}
            (tmp_path / "results.json").write_text(json.dumps(made | {"data": about}))
            return measured(read((tmp_path,)).values()).get(key)

        assert cell("nobody's") == "50.0 on mine"
        assert {cell(fingerprint) for data in DATA for fingerprint in data.fingerprints} == {None}
        monkeypatch.setattr(image_sets, "DATA", (Data(column.images, "", fingerprints=("theirs",)),))
        assert cell("theirs") == "50.0"
        monkeypatch.undo()


@pytest.mark.parametrize("place", ["nowhere", "results.json"])
def test_a_place_of_results_is_a_folder(place: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(NoFolderError, match=rf"{place}', which is no folder"):
        read((tmp_path / place,))


def test_the_command_shows_ours_beside_theirs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(tmp_path, results_of_a_probe("resnet32_rotnet.stl10_200ep"))
    capsys.readouterr()
    assert main(["tables", "patch-2", "--results", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    (row,) = (line for line in said.splitlines() if line.startswith("RotNet"))
    assert row.split("  ")[-1] == "not measured"
    assert "52.25   65.1 [64.7, 65.5] on images that are not recorded  76.06" in row
    assert main(["tables"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(TABLES)
    assert main(["tables", "lewel-11"]) == 2
    assert "no table is called 'lewel-11'; the nearest: lewel-1" in capsys.readouterr().err
