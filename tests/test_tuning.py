"""The search of settings, and the table of all methods: equal budgets, what is done once, and what is held to what."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from runs import forget, image_folder
from small_methods import leave_teacher

from ssl_backbones import recipes
from ssl_backbones.methods import METHODS
from ssl_backbones.recipes.own import put
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.growth import pixels

sys.path.append(str(ROOT / "benchmarks"))
import all_methods
import equal_cost_rows
import progressive
import tuning


@pytest.fixture
def bench(tmp_path: Path) -> equal_cost_rows.Bench:
    image_folder(tmp_path / "images" / "train", 60)
    image_folder(tmp_path / "images" / "val", 20)
    sets = {name: str(tmp_path / "images") for name in (tuning.DATA, all_methods.DATA)}
    return equal_cost_rows.Bench(sets, {"lite0": leave_teacher(tmp_path / "lite0")}, tmp_path / "out", budget=90.0)


@pytest.mark.parametrize("method", tuning.GRIDS)
def test_candidates_are_values_of_the_recipe_and_no_two_alike(method: str) -> None:
    found = tuning.candidates(method, 9, 0)
    assert found[0] == {}
    assert len({json.dumps(one) for one in found}) == 9
    assert found == tuning.candidates(method, 9, 0) != tuning.candidates(method, 9, 1)
    recipe = recipes.get(tuning.recipe_of(method))
    for grid, values in tuning.GRIDS[method].items():
        for value in values:
            assert Recipe.from_dict(json.loads(json.dumps(put(recipe, grid, value).to_dict())))


def test_a_round_costs_what_every_other_does_and_the_best_go_on(
    bench: equal_cost_rows.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a method's epoch costs; and a search that is stopped does nothing again."""
    made: list[Recipe] = []

    def scored(recipe: Recipe) -> dict[str, Any]:
        if len(made) == 11 and stopping.pop():
            raise KeyboardInterrupt
        made.append(recipe)
        return {"score": recipe.optimizer.lr, "before": 0.1, "cpu_seconds": 0.5 * recipe.epochs}

    stopping = [False, True]
    monkeypatch.setattr(tuning, "scored", scored)
    with pytest.raises(KeyboardInterrupt):
        tuning.search(bench, "simclr", 0.5, 0)
    found = tuning.search(bench, "simclr", 0.5, 0)
    assert len(made) == 13
    assert [len(one) for one in found["rounds"]] == [9, 3, 1]
    assert [one[0]["epochs"] for one in found["rounds"]] == [6, 20, 60]
    assert found["cpu_seconds"] == pytest.approx(0.5 * (9 * 6 + 3 * 20 + 60))
    best = max(tuning.candidates("simclr", 9, 0), key=lambda choices: choices.get("optimizer.lr", 0.12))
    assert found["choices"] == best
    assert {recipe.hold_out for recipe in made} == {tuning.HELD_OUT}
    with pytest.raises(ValueError, match="is of another budget or seed than this search's"):
        tuning.search(replace(bench, budget=180.0), "simclr", 0.5, 0)
    assert all(recipe.size == 32 and recipe.schedule.warmup_epochs < recipe.epochs for recipe in made)


def test_a_budget_below_an_epoch_is_refused_in_words() -> None:
    words = r"--budget is 20, and 9 candidates for an epoch of 2.0 s each, in a round of 3, take 54 CPU seconds"
    with pytest.raises(ValueError, match=words):
        tuning.epochs_of(20, 2.0, 9)


@pytest.mark.slow
def test_a_search_on_a_tiny_budget_ends_with_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For real: trials on held-out images, records, and a file that the table takes."""
    image_folder(tmp_path / "train", 300)
    image_folder(tmp_path / "val", 20)
    monkeypatch.setattr(tuning, "HELD_OUT", 10)
    monkeypatch.setattr(tuning, "ROUNDS", (2, 1))
    monkeypatch.setattr(tuning, "costs", lambda *_: {tuning.recipe_of("simclr"): {"epoch": 1.0}})
    out = tmp_path / "out"
    words = ["tuning.py", "--data", str(tmp_path), "--out", str(out), "--budget", "4", "--methods", "simclr"]
    monkeypatch.setattr(sys, "argv", words)
    threads = torch.get_num_threads()
    try:
        forget()
        assert tuning.main() == 0
    finally:
        forget()
        torch.set_num_threads(threads)
    records = [json.loads(file.read_text()) for file in sorted((out / "records").glob("*.json"))]
    assert [(one["round"], one["epochs"]) for one in records] == [(0, 1), (0, 1), (1, 2)]
    assert all(0 <= one["score"] <= 1 and one["cpu_seconds"] > 0 for one in records)
    found = all_methods.choices_in(out / "tuned.json")
    assert found.keys() == {tuning.recipe_of("simclr")}


def test_every_method_with_a_small_recipe_is_a_row() -> None:
    """And nothing is left out but what has no recipe of a ResNet-8 on Imagenette."""
    found = {all_methods.method_of(row) for row in all_methods.rows(teacher=True)}
    assert found == {name for name in METHODS if all_methods.recipes_of(name)}
    assert METHODS.keys() - found <= {"moco_v1"}
    assert set(all_methods.TEN) <= found
    assert {name for pair in all_methods.PAIRED for name in pair} <= found
    rows = all_methods.rows(teacher=False)
    assert all_methods.method_of(rows[0]) == all_methods.PAIRS_BY
    assert not any(recipes.get(row.recipe).method.given for row in rows)
    assert len({row.slug for row in rows}) == len(rows)


def test_the_ten_have_every_seed() -> None:
    rows = all_methods.rows(teacher=False)
    runs = list(all_methods.order(rows, [0, 1, 2]))
    assert [row for row, seed in runs if seed == 0] == rows
    assert {all_methods.method_of(row) for row, seed in runs if seed == 2} == set(all_methods.TEN)


def test_the_table_holds_methods_against_one_another_on_the_same_seeds(
    bench: equal_cost_rows.Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that failed are told and left to be done, a table of the others is there."""
    rows = [row for row in all_methods.rows(teacher=False) if all_methods.method_of(row) in ("moco_v2", "lewel_m")]
    monkeypatch.setattr(all_methods, "mined", lambda *_: None)
    monkeypatch.setattr(all_methods, "cost_of", lambda *_: {"epoch": 30.0, "before": 0.0})
    right = {"moco_v2": 0x0F, "lewel_m": 0x3F}

    def record(share: int) -> dict[str, Any]:
        return {name: {"accuracy": share.bit_count() / 8, "right": f"{share:02x}"} for name in ("knn", "linear")}

    def trained(_: Any, row: Any, __: str, seed: int, epochs: int, ___: float) -> dict[str, Any]:
        if seed == 1 and all_methods.method_of(row) == "moco_v2" and failing:
            raise RuntimeError(failing.pop())
        cost = {"training": 1.0, "teacher_before": 0.0, "whole": 1.0}
        return {"of": 8, "epochs": epochs, "cpu_seconds": cost, **record(right[all_methods.method_of(row)])}

    failing = ["no reason"]
    monkeypatch.setattr(all_methods, "trained", trained)
    monkeypatch.setattr(all_methods, "drawn", lambda *_: {"of": 8} | record(0x03))
    file = tmp_path / "table.json"
    assert all_methods.work(bench, rows, [0, 1], file) == 1
    assert all_methods.work(bench, rows, [0, 1], file) == 0
    found = json.loads(file.read_text())
    assert (found["rows"][0]["row"], found["rows"][0]["seeds"]) == ("Random weights", [0, 1])
    assert {row["epochs"] for row in found["rows"][1:]} == {3}
    (pair,) = found["pairs"]
    assert pair["knn"]["by_seed"] == [0.25, 0.25]
    assert pair["knn"]["value"] == pytest.approx(0.25)
    assert "| +25.0" in file.with_suffix(".md").read_text()


def test_choices_are_taken_and_pairs_have_a_place(bench: equal_cost_rows.Bench) -> None:
    name = "resnet8_simclr.imagenette96_100ep"
    chosen = equal_cost_rows.Bench(bench.sets, {}, bench.out, 9, {name: {"method.temperature": 0.7}})
    assert chosen.recipe(equal_cost_rows.Row("x", name), all_methods.DATA, 0, 3).method.temperature == 0.7  # type: ignore[attr-defined]
    row = next(row for row in all_methods.rows(False) if all_methods.method_of(row) == "flags")
    assert bench.recipe(row, all_methods.DATA, 0, 3).method.pairs == str(bench.out / "pairs.parquet")  # type: ignore[attr-defined]


@pytest.mark.parametrize("row", [*equal_cost_rows.ROWS, *equal_cost_rows.DEEP], ids=lambda row: row.slug)
def test_every_row_has_a_recipe_on_each_set_and_begins_as_a_row_before_it(row: equal_cost_rows.Row) -> None:
    sets = {data: f"/{data}" for data in equal_cost_rows.SIDES}
    bench = equal_cost_rows.Bench(sets, dict.fromkeys(equal_cost_rows.TEACHERS, "/teacher"), Path("out"), budget=90.0)
    before = {each.label for each in (equal_cost_rows.ROWS if row in equal_cost_rows.ROWS else equal_cost_rows.DEEP)}
    assert row.begins_as in {"", *before} - {row.label}
    for data in row.sets:
        recipe = bench.recipe(row, data, 0, 3)
        assert recipe.size == (row.size or {"imagenette": 64, "goods": 96}[data])
        assert (recipe.data, recipe.model.split("_")[0]) == (f"/{data}", "resnet8" if row.size else "resnet18")
        if row.begins_as:
            images = data if row.begins_here else equal_cost_rows.other_than(data)
            assert recipe.init == str(bench.run(equal_cost_rows.Row(row.begins_as, ""), images, 0))


@pytest.mark.slow
def test_pairs_are_mined_by_the_first_run_of_moco_and_trained_on(bench: equal_cost_rows.Bench) -> None:
    """For real: a run, its pairs, once, and a run of FLAGS on them."""
    rows = {all_methods.method_of(row): row for row in reversed(all_methods.rows(False))}
    few = {"batch_size": 16, "method.queue_size": 32, "method.bn_splits": 2}
    chosen = replace(bench, choices={rows[name].recipe: few for name in ("moco_v2", "flags")})
    try:
        forget()
        all_methods.trained(chosen, rows["moco_v2"], all_methods.DATA, 0, 2, 0.0)
        all_methods.mined(chosen, rows["moco_v2"], 0)
        written = chosen.pairs.stat().st_mtime_ns
        all_methods.mined(chosen, rows["moco_v2"], 0)
        assert chosen.pairs.stat().st_mtime_ns == written
        found = all_methods.trained(chosen, rows["flags"], all_methods.DATA, 0, 2, 0.0)
    finally:
        forget()
    assert found["steps"] == 2 * (60 // 16)
    assert 0 <= found["knn"]["accuracy"] <= 1


def test_growing_views_get_the_epochs_that_their_pixels_pay_for(tmp_path: Path) -> None:
    options = argparse.Namespace(
        recipe="imagenette32_60ep", out=tmp_path, epochs=20, size=32, data=tmp_path, start=16, step=16, whole_from=0.75
    )
    whole, growing, longer = (progressive.recipe_of(options, "byol", row, 1) for row in progressive.ROWS)
    assert (set(whole.sides), set(growing.sides)) == ({32}, {16, 32})
    assert whole.epochs == growing.epochs == 20
    assert sum(pixels(longer)) == pytest.approx(20, abs=0.5)
    assert len({recipe.folder for recipe in (whole, growing, longer)}) == 3
    assert RunFolder(whole.folder).path == tmp_path / "runs" / "byol.0.seed1"
