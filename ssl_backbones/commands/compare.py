"""Compare recipes: a table of evaluations, over seeds.

Examples:
    ssl-backbones compare benchmarks/imagenette.toml --data imagenette --seeds 0 1 2

A grid is a TOML file of rows (a recipe to run, or a model as it is) and columns (an evaluation, and the number of it
that is shown); benchmarks/imagenette.toml is one. What is finished is not done again, so the same command goes on with
a comparison that was stopped; what is run by other words or on other data lies in another folder. Leaves table.md,
table.json and table.png beside the runs.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssl_backbones.evaluate.comparison.figure import canvas, draw
from ssl_backbones.evaluate.comparison.grid import Column, Grid, GridError, Row, only, read_grid
from ssl_backbones.evaluate.comparison.table import collect, markdown, plain, student
from ssl_backbones.files import write_file, write_json
from ssl_backbones.typed.words import Positional

SCRIPTS = Path(__file__).parents[2] / "training"


@dataclass(frozen=True)
class Job:
    """A process of the comparison."""

    words: list[str]
    """What is started."""
    done: Path
    """The file that it leaves when it has finished."""
    log: Path
    needed: bool = False
    """Whether nothing that follows it in its row can be done without it."""


@dataclass(frozen=True)
class Options:
    """The grid, and what is said instead of it."""

    grid: Positional[Path]
    """A TOML file of rows and columns."""
    data: str | None = None
    """The images, instead of the file's."""
    validation: str | None = None
    """The images to ask about, instead of the file's."""
    out: str | None = None
    """The folder, instead of the file's."""
    seeds: tuple[int, ...] | None = None
    """Seeds, instead of the file's."""
    launch: str | None = None
    """Instead of the file's, such as 'accelerate launch --num_processes 8'."""
    rows: tuple[str, ...] = ()
    """The labels of the only rows to make."""


def run(options: Options) -> int:
    """Make what is not made yet, and print the table; 1 where some of it failed."""
    given = {name: getattr(options, name) for name in ("data", "validation", "out", "seeds", "launch")}
    grid = only(read_grid(options.grid, **given | {"seeds": options.seeds and list(options.seeds)}), list(options.rows))
    failed = compare(grid)
    leave(grid)
    print((Path(grid.out) / "table.md").read_text(encoding="utf-8"))
    if failed:
        print(f"compare: {len(failed)} failed; the same command tries them again", file=sys.stderr)
    return 1 if failed else 0


def jobs(grid: Grid, row: Row, seed: int) -> Iterator[Job]:
    """All that a row needs for one seed, in order."""
    model = [row.model, *(["--random"] if row.random else [])]
    if row.recipe:
        if row.makes:
            made = grid.made_file(row, seed)
            script, *words = grid.filled(row.by, seed, row)
            yield Job([sys.executable, str(SCRIPTS / script), *words], made, Path(f"{made}.log"), needed=True)
        run = grid.run_folder(row, seed)
        model = [str(run)]
        yield Job(pretrain_words(grid, row, seed, run), run / "results.json", Path(f"{run}.log"), needed=True)
    for column in grid.columns:
        folder = grid.cell_folder(row, column, seed)
        yield Job(evaluation_words(grid, column, model, seed, folder), folder / "results.json", Path(f"{folder}.log"))


def pretrain_words(grid: Grid, row: Row, seed: int, run: Path) -> list[str]:
    """What pretrains a row's backbone."""
    words = [*launched(grid, "pretrain.py"), row.recipe, "--data", grid.data, "--seed", str(seed), "--out", str(run)]
    words += ["--validation", grid.validation] if grid.validation else []
    return [*words, *grid.filled(grid.options, seed), *grid.filled(row.options, seed, row)]


def evaluation_words(grid: Grid, column: Column, model: list[str], seed: int, folder: Path) -> list[str]:
    """What evaluates it."""
    script, *protocol = shlex.split(column.protocol)
    words = [*launched(grid, script), *protocol, *model, "--data", grid.data, "--seed", str(seed), "--out", str(folder)]
    words += ["--validation", grid.validation] if grid.validation else []
    return [*words, *grid.filled(column.options, seed)]


def launched(grid: Grid, script: str) -> list[str]:
    """The words that start a script of this folder."""
    path = SCRIPTS / script
    if not path.is_file():
        raise GridError(f"{script!r} is no script of {SCRIPTS.name}/: name one, such as evaluate.py, in the column")
    return [*(shlex.split(grid.launch) or [sys.executable]), str(path)]


def compare(grid: Grid) -> list[Job]:
    """Do all that is not done yet, seed by seed, keeping the table up to date; the jobs that failed."""
    canvas(1, 1)  # refuses, as the next line does, a library that the table would miss after all the work
    student()
    failed: list[Job] = []
    for seed in grid.seeds:
        for row in grid.rows:
            for job in jobs(grid, row, seed):
                if job.done.exists():
                    continue
                print(f"{row.label}, seed {seed}: {shlex.join(job.words[1:])}", flush=True)
                job.log.parent.mkdir(parents=True, exist_ok=True)
                with open(job.log, "ab") as log:
                    code = subprocess.run(job.words, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
                if code or not job.done.exists():
                    failed.append(job)
                    print(f"  ended with {code}; see {job.log}", flush=True)
                    if job.needed:
                        break
            leave(grid)
    return failed


def leave(grid: Grid) -> None:
    """Write the table as it stands."""
    table, out = collect(grid), Path(grid.out)
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / "table.md", markdown(grid, table).encode())
    write_json(out / "table.json", plain(grid, table))
    draw(grid, table, out / "table.png")
