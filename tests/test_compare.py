"""A grid of runs becomes a table; scripts of a few lines stand in for those that train."""

from __future__ import annotations

import json
import math
import re
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripts import script

from ssl_backbones import recipes
from ssl_backbones.commands import compare
from ssl_backbones.evaluate.comparison.grid import Column, Grid, GridError, Row, read_grid
from ssl_backbones.evaluate.comparison.table import cell_of, collect, markdown, printed

SCRIPT = """
import json, sys, pathlib
words = sys.argv[1:]
said = lambda name: words[words.index("--" + name) + 1]
out = pathlib.Path(said("out"))
out.mkdir(parents=True, exist_ok=True)
with open(out.parent / "calls.txt", "a") as calls:
    calls.write(" ".join(words) + "\\n")
if "--fail" in words:
    print("this went wrong")
    sys.exit(3)
value = 0.1 * int(said("seed")) + (0.5 if "pretrain" in sys.argv[0] or "seed" in words[1] else 0.2)
top1 = {"value": value, "low": value - 0.02, "high": value + 0.02}
(out / "results.json").write_text(json.dumps({"numbers": {"top1": top1}}))
"""
RECIPES = ("resnet8_byol.imagenette96_100ep", "resnet8_moco_v2.imagenette96_100ep")


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scripts"
    folder.mkdir()
    for name in ("pretrain.py", "evaluate.py"):
        (folder / name).write_text(SCRIPT)
    (folder / "make.py").write_text("import sys, pathlib; pathlib.Path(sys.argv[2]).write_text(sys.argv[1])")
    monkeypatch.setattr(compare, "SCRIPTS", folder)
    return folder


def grid_file(tmp_path: Path, **changes: Any) -> Path:
    """A grid of two recipes and random weights, on two seeds."""
    lines = [f"out = {json.dumps(str(tmp_path / 'out'))}", 'data = "photos"', "seeds = [0, 1]"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in changes.items()]
    lines += ["[[rows]]", 'label = "Random weights"', 'model = "resnet8"', "random = true"]
    lines += ["[[rows]]", 'label = "BYOL"', f'recipe = "{RECIPES[0]}"']
    lines += ["[[rows]]", 'label = "MoCo v2"', f'recipe = "{RECIPES[1]}"', 'options = "--method.pairs {made}"']
    lines += ['makes = "made.txt"', 'by = "make.py {run:BYOL} {made}"']
    lines += ["[[columns]]", 'label = "k-NN"', 'number = "top1"', 'protocol = "evaluate.py knn"']
    lines += ['options = "--size 32"', 'note = "20 neighbours."']
    path = tmp_path / "grid.toml"
    path.write_text("\n".join(lines))
    return path


def test_a_grid_becomes_a_table_and_nothing_is_done_twice(scripts: Path, tmp_path: Path) -> None:
    path = grid_file(tmp_path)
    script("compare", [str(path)])
    grid, out = read_grid(path), tmp_path / "out"
    table = (out / "table.md").read_text()
    assert "| Random weights | 25.0 ± 63.5 |" in table  # .2 and .3: Student's t of one degree of freedom, 12.7 x .05
    assert "| BYOL | **55.0 ± 63.5** |" in table
    assert "k-NN: 20 neighbours." in table
    assert "mean over seeds 0, 1" in table
    assert (out / "table.png").read_bytes().startswith(b"\x89PNG")
    cells = {row["label"]: row["cells"]["k-NN"] for row in json.loads((out / "table.json").read_bytes())["rows"]}
    assert cells["MoCo v2"] == pytest.approx(cells["BYOL"])
    calls = [line for file in sorted(out.rglob("calls.txt")) for line in file.read_text().splitlines()]
    assert len(calls) == 2 * (1 + 2 * 2)
    byol, moco = grid.rows[1:]
    for seed in (0, 1):
        made, run = grid.made_file(moco, seed), grid.run_folder(moco, seed)
        assert made.read_text() == str(grid.run_folder(byol, seed))
        assert f"{RECIPES[1]} --data photos --seed {seed} --out {run} --method.pairs {made}" in calls
        assert any(call.startswith(f"knn {run} --data photos --seed {seed}") for call in calls)
    assert any(call.startswith("knn resnet8 --random") for call in calls)
    script("compare", [str(path)])
    assert len([line for file in out.rglob("calls.txt") for line in file.read_text().splitlines()]) == len(calls)


def test_what_failed_is_said_and_tried_again(scripts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = grid_file(tmp_path)
    broken = path.read_text().replace('options = "--size 32"', 'options = "--size 32 --fail"')
    path.write_text(broken)
    with pytest.raises(SystemExit) as end:
        script("compare", [str(path), "--seeds", "0"])
    assert end.value.code == 1
    said = capsys.readouterr()
    assert "ended with 3; see " in said.out
    assert "| BYOL | not measured |" in said.out
    assert "3 failed" in said.err
    path.write_text(broken.replace(" --fail", ""))
    script("compare", [str(path), "--seeds", "0"])
    table = capsys.readouterr().out
    assert "| BYOL | **50.0 ± 2.0** |" in table
    assert "one seed" in table
    assert "mean over seeds" not in table


def test_other_words_write_elsewhere(tmp_path: Path) -> None:
    grid = read_grid(grid_file(tmp_path))
    (column,), row = grid.columns, grid.rows[1]
    folders = {
        grid.cell_folder(row, column, 0),
        grid.cell_folder(row, column, 1),
        grid.cell_folder(grid.rows[0], column, 0),
        grid.cell_folder(row, Column("k-NN", "top1", "evaluate.py knn", "--size 64"), 0),
        read_grid(tmp_path / "grid.toml", data="others").cell_folder(row, column, 0),
    }
    assert len(folders) == 5
    assert re.fullmatch(r"seed0\.\w{8}", grid.run_folder(row, 0).name)
    assert re.fullmatch(rf"{grid.run_folder(row, 0).name}\.knn\.\w{{8}}", grid.cell_folder(row, column, 0).name)
    assert grid.cell_folder(grid.rows[0], column, 0).parent.name == "resnet8.random"


def test_other_runs_lie_elsewhere_and_those_made_of_them_too(tmp_path: Path) -> None:
    path = grid_file(tmp_path)
    grid = read_grid(path)
    longer = path.read_text().replace(f'recipe = "{RECIPES[0]}"', f'recipe = "{RECIPES[0]}"\noptions = "--epochs 9"')
    (tmp_path / "longer.toml").write_text(longer)
    others = [
        read_grid(tmp_path / "longer.toml"),
        read_grid(path, data="others"),
        read_grid(path, validation="others"),
        replace(grid, options="--epochs 9"),
    ]
    for other in others:
        for one, same in zip(grid.rows[1:], other.rows[1:], strict=True):
            assert grid.run_folder(one, 0) != other.run_folder(same, 0)
            assert grid.cell_folder(one, grid.columns[0], 0) != other.cell_folder(same, grid.columns[0], 0)
    made = {other.made_file(other.rows[2], seed) for other in (grid, *others[:3]) for seed in (0, 1)}
    assert len(made) == 8
    moved = read_grid(path, out=str(tmp_path / "moved"))
    assert moved.run_folder(moved.rows[2], 0).name == grid.run_folder(grid.rows[2], 0).name
    assert moved.made_file(moved.rows[2], 0).name == grid.made_file(grid.rows[2], 0).name


def test_rows_of_one_recipe_and_other_options_are_told_apart(scripts: Path, tmp_path: Path) -> None:
    path = grid_file(tmp_path)
    row = f'[[rows]]\nlabel = "long"\nrecipe = "{RECIPES[0]}"\noptions = "--seed 9"\n'
    path.write_text(path.read_text().replace("[[columns]]", f"{row}[[columns]]"))
    script("compare", [str(path), "--seeds", "0"])
    calls = [line for file in (tmp_path / "out").rglob("calls.txt") for line in file.read_text().splitlines()]
    assert sum(call.startswith(RECIPES[0]) for call in calls) == 2
    script("compare", [str(path), "--seeds", "0", "--data", "others", "--rows", "long"])
    calls = [line for file in (tmp_path / "out").rglob("calls.txt") for line in file.read_text().splitlines()]
    assert sum(call.startswith(f"{RECIPES[0]} --data others") for call in calls) == 1


def test_a_column_that_fails_leaves_the_others(
    scripts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = grid_file(tmp_path)
    second = '[[columns]]\nlabel = "linear"\nnumber = "top1"\nprotocol = "evaluate.py logistic"'
    path.write_text(path.read_text().replace('"--size 32"', '"--fail"') + f"\n{second}")
    with pytest.raises(SystemExit):
        script("compare", [str(path), "--seeds", "0"])
    assert "| BYOL | not measured | **50.0 ± 2.0** |" in capsys.readouterr().out


@pytest.mark.parametrize("broken", ["make.py", "pretrain.py"])
def test_without_its_backbone_a_row_ends(broken: str, scripts: Path, tmp_path: Path) -> None:
    (scripts / broken).write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit):
        script("compare", [str(grid_file(tmp_path)), "--seeds", "0", "--rows", "MoCo v2"])
    assert not list((tmp_path / "out").rglob("calls.txt"))


@pytest.mark.parametrize("module", ["matplotlib", "scipy"])
def test_what_the_table_needs_is_asked_for_before_any_work(
    module: str, scripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as end:
        script("compare", [str(grid_file(tmp_path))])
    assert end.value.code == 2
    said = capsys.readouterr()
    assert said.err == f"compare.py: {module} is not installed: pip install 'ssl-backbones[viz]'\n"
    assert not (tmp_path / "out").exists()


def test_what_the_table_needs_is_in_the_extra_that_is_named() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert {"matplotlib", "scipy"} <= {re.split(r"\W", line)[0] for line in project["optional-dependencies"]["viz"]}


def test_only_some_rows(scripts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("compare", [str(grid_file(tmp_path)), "--rows", "BYOL", "--seeds", "1"])
    assert "| BYOL | 60.0 ± 2.0 |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        script("compare", [str(tmp_path / "grid.toml"), "--rows", "BYLO"])
    assert "'BYLO' is no row of the grid: choose from 'Random weights'" in capsys.readouterr().err


ROW = 'label = "A"\nmodel = "resnet8"'
COLUMN = '[[columns]]\nlabel = "k-NN"\nnumber = "top1"\nprotocol = "evaluate.py knn"'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rows = 3", "rows is 3, but must be"),
        ("data = ", "is not TOML"),
        (f'data = "d"\nout = "o"\nrows = []\n{COLUMN}', "the grid has no rows"),
        (f'data = "d"\nout = "o"\nseeds = [1, 1]\n[[rows]]\n{ROW}\n{COLUMN}', "a seed stands twice"),
        (f'data = "d"\nout = "o"\n[[rows]]\n{ROW}\n[[rows]]\n{ROW}\n{COLUMN}', "the row 'A' stands twice"),
        (f'data = "d"\nout = "o"\n[[rows]]\nlabel = "A"\n{COLUMN}', "either a recipe or a model"),
        (f'data = "d"\nout = "o"\n[[rows]]\n{ROW}\nmakes = "m"\n{COLUMN}', "what is made and by what"),
        (f'data = "d"\nout = "o"\n[[rows]]\n{ROW}\nmakes = "a/m"\nby = "m {{made}}"\n{COLUMN}', "file's name alone"),
        (f'data = "d"\nout = "o"\n[[rows]]\n{ROW}\nmakes = "{{out}}"\nby = "m {{made}}"\n{COLUMN}', "name alone"),
        (f'data = "d"\nout = "o"\n[[rows]]\n{ROW}\nmakes = "m"\nby = "m o/m"\n{COLUMN}', "say {made} where"),
        (f'data = "d"\nout = "o"\n[[rows]]\n{ROW}\noptions = "{{run:A}}"\n{COLUMN}', "{run:A} in '{run:A}' names no"),
        (f'data = "d"\nout = "o"\n[[rows]]\nlabel = "A"\nrecipe = "resnet8_boyl.x"\n{COLUMN}', "is not a recipe"),
        (f'data = "d"\nout = "o"\n[[rows]]\n{ROW}\ncolour = "m"\n{COLUMN}', "colour is not a field of Row"),
    ],
)
def test_a_grid_that_cannot_be_read(
    text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "grid.toml").write_text(text)
    with pytest.raises(SystemExit) as end:
        script("compare", [str(tmp_path / "grid.toml")])
    assert end.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("compare.py: ")
    assert expected in said
    assert len(said.splitlines()) == 1


def test_words_in_braces_and_unknown_scripts_and_numbers(scripts: Path, tmp_path: Path) -> None:
    grid = read_grid(grid_file(tmp_path))
    with pytest.raises(GridError, match=r"\{seeds\} in '--a \{seeds\}' stands for nothing: choose from \{data\}, "):
        grid.filled("--a {seeds}", 0)
    for unknown in ("{made}", "{run:BYOL}"):
        with pytest.raises(GridError, match="stands for nothing"):
            grid.filled(unknown, 0, grid.rows[1])
    assert grid.filled("--a '{data} x' {seed}", 7) == ["--a", "photos x", "7"]
    with pytest.raises(GridError, match=r"'evaluat\.py' is no script"):
        compare.launched(grid, "evaluat.py")
    missing = Grid("t", "d", str(tmp_path), (Row("A", model="resnet8"),), (Column("c", "top5", "evaluate.py knn"),))
    folder = missing.cell_folder(missing.rows[0], missing.columns[0], 0)
    folder.mkdir(parents=True)
    (folder / "results.json").write_text('{"numbers": {"top1": {"value": 1}}}')
    with pytest.raises(GridError, match="holds no number 'top5' for the column 'c': choose from 'top1'"):
        collect(missing)


def test_the_interval_over_seeds_is_students() -> None:
    cell = cell_of([{"value": value} for value in (0.60, 0.64, 0.62)])
    assert cell.mean == pytest.approx(0.62)
    assert cell.high - cell.mean == pytest.approx(4.302653 * 0.02 / math.sqrt(3), rel=1e-6)
    assert cell_of([{"value": 0.5}]).low is None


def test_cells_as_a_reader_sees_them() -> None:
    share, plain = Column("a", "n", "p"), Column("a", "n", "p", percent=False)
    assert printed(cell_of([{"value": 0.631, "low": 0.616, "high": 0.6462}]), share) == "63.1 ± 1.5"
    assert printed(cell_of([{"value": 0.99, "low": 0.97, "high": 0.995}]), share) == "99.0 (-2.0, +0.5)"
    assert printed(cell_of([{"value": 12.3456}]), plain) == "12.346"
    assert printed(None, share) == "not measured"


def test_the_best_of_a_column_is_bold_where_there_is_something_to_beat(tmp_path: Path) -> None:
    grid = read_grid(grid_file(tmp_path))
    lone = {("BYOL", "k-NN"): cell_of([{"value": 0.5}])}
    assert "| BYOL | 50.0 |" in markdown(grid, lone)


def test_the_grid_that_ships_holds_every_method_of_the_table() -> None:
    grid = read_grid(Path(__file__).parents[1] / "benchmarks" / "imagenette.toml")
    assert len(grid.rows) == 17
    for row in grid.rows:
        for job in compare.jobs(grid, row, seed=1):  # all words in braces are known
            assert not re.search(r"\{\w", " ".join(job.words))
    words = next(compare.jobs(grid, grid.rows[14], seed=1)).words
    assert str(grid.run_folder(grid.rows[10], 1)) in words
    assert grid.made_file(grid.rows[14], 1) == grid.made_file(grid.rows[15], 1)
    family = "Imagenette at equal cost (no paper)"
    assert {row.recipe for row in grid.rows[1:]} == {
        name for name, recipe in recipes.RECIPES.items() if recipe.promise.paper == family
    }
