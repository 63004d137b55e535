"""The table of a comparison: its means and intervals, and the recorded one of the benchmark."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from ssl_backbones import recipes
from ssl_backbones.commands import compare
from ssl_backbones.evaluate.comparison.comparison import Column, Comparison, ComparisonError, Row
from ssl_backbones.evaluate.comparison.jobs import jobs
from ssl_backbones.evaluate.comparison.table import Cell, cell_of, collect, markdown, printed

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import imagenette

BYOL, MOCO = "resnet8_byol.imagenette96_100ep", "resnet8_moco_v2.imagenette96_100ep"


def test_a_number_that_is_not_there(tmp_path: Path) -> None:
    missing = Comparison("t", "d", tmp_path, (Row("A", model="resnet8"),), (Column("c", "knn", "top-5"),))
    path = missing.results(missing.rows[0], missing.columns[0], 0)
    path.parent.mkdir(parents=True)
    path.write_text('{"numbers": {"top-1": {"value": 1}}}')
    with pytest.raises(ComparisonError, match="holds no number 'top-5' for the column 'c': choose from 'top-1'"):
        collect(missing)


def test_the_interval_over_seeds_is_students() -> None:
    cell = cell_of([{"value": value} for value in (0.60, 0.64, 0.62)])
    assert cell.mean == pytest.approx(0.62)
    assert cell.high is not None
    assert cell.high - cell.mean == pytest.approx(4.302653 * 0.02 / math.sqrt(3), rel=1e-6)
    assert cell_of([{"value": 0.5}]).low is None


@pytest.mark.parametrize("ends", [{"low": 0.4, "high": 0.6}, {}])
@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_equal_values_have_the_interval_over_images(seeds: int, ends: dict[str, float]) -> None:
    cell = cell_of([{"value": 0.5, **ends}] * seeds)
    assert (cell.mean, cell.low, cell.high, cell.seeds) == (0.5, ends.get("low"), ends.get("high"), seeds)
    assert printed(cell, Column("knn", "knn", "top-1"), seeds) == ("50.0 ± 10.0" if ends else "50.0")


def test_cells_as_a_reader_sees_them() -> None:
    share, plain = Column("a", "p", "n"), Column("a", "p", "n", percent=False)
    assert printed(cell_of([{"value": 0.631, "low": 0.616, "high": 0.6462}]), share) == "63.1 ± 1.5"
    assert printed(cell_of([{"value": 0.99, "low": 0.97, "high": 0.995}]), share) == "99.0 (-2.0, +0.5)"
    assert printed(cell_of([{"value": 12.3456}]), plain) == "12.346"
    assert printed(None, share) == "not measured"
    two = cell_of([{"value": 0.6}, {"value": 0.62}])
    assert printed(two, share, seeds=2) == printed(two, share)
    assert printed(two, share, seeds=3) == f"{printed(two, share)} (2 seeds)"
    for one in (cell_of([{"value": 0.6, "low": 0.5, "high": 0.7}]), cell_of([{"value": 0.6}])):
        assert printed(one, share, seeds=3) == f"{printed(one, share)} (1 seed)"
    assert printed(cell_of([{"value": 0.6}] * 2), share, seeds=3) == "60.0 (2 seeds)"


def test_the_best_of_a_column_is_bold_where_there_is_something_to_beat() -> None:
    compared = compare.comparison_of(compare.parse([BYOL, MOCO, "--data", "photos"], "compare"))
    assert f"| {BYOL} | 50.0 |" in markdown(compared, {(BYOL, "k-NN"): cell_of([{"value": 0.5}])})


def test_the_benchmark_holds_every_method_of_the_table() -> None:
    table = imagenette.comparison("photos", Path("runs"), (0, 1))
    assert len(table.rows) == 17
    family = "Imagenette at equal cost (no paper)"
    at_equal_cost = {name for name, recipe in recipes.RECIPES.items() if recipe.promise.paper == family}
    assert {row.recipe for row in table.rows[1:]} == at_equal_cost
    mined: Any = next(jobs(table, table.rows[14], seed=1))
    assert mined.words[:2] == ("mine-pairs", str(table.run_folder(table.rows[10], 1)))
    assert table.pairs_file(table.rows[14], 1) == table.pairs_file(table.rows[15], 1)
    evaluated = [job.words for row in table.rows for job in jobs(table, row, 0) if job.words[0] == "evaluate"]
    assert {words[1] for words in evaluated} == {"knn", "logistic", "mlp"}
    assert all(words[words.index("--workers") + 1] == "0" for words in evaluated)


def test_the_recorded_table_has_the_benchmarks_rows() -> None:
    results = Path(__file__).parents[1] / "benchmarks" / "results" / "imagenette_table.json"
    recorded = json.loads(results.read_bytes())
    table = imagenette.comparison("photos", Path("runs"), (0,))
    assert [(row["label"], row["recipe"]) for row in recorded["rows"]] == [
        (row.label, row.recipe or None) for row in table.rows
    ]
    assert [(each["label"], each["number"]) for each in recorded["columns"]] == [
        (each.label, each.number) for each in table.columns
    ]


def test_a_network_that_is_as_it_is_has_the_interval_over_images(tmp_path: Path) -> None:
    """Seeds only choose what images a setting is chosen on."""
    numbers = [{"value": value, "low": value - 0.1, "high": value + 0.1} for value in (0.658, 0.658, 0.659)]
    assert cell_of(numbers).over == "seeds"
    assert cell_of(numbers, fixed=True) == Cell(0.658, pytest.approx(0.558), pytest.approx(0.758), 3, "images")


def test_no_rank_is_the_best(tmp_path: Path) -> None:
    rank, share = Column("rank", "diagnose", "rank", percent=False), Column("k-NN", "knn", "k")
    rows = (Row("A", model="resnet8"), Row("B", model="resnet20"))
    comparison = Comparison("t", "d", tmp_path, rows, (rank, share))
    labels = [(row.label, column.label) for row in rows for column in (rank, share)]
    cells = {label: cell_of([{"value": 0.1 + at // 2}]) for at, label in enumerate(labels)}
    (_, line) = [line for line in markdown(comparison, cells).splitlines() if line.startswith(("| A", "| B"))]
    assert line == "| B | 1.100 | **110.0** |"
