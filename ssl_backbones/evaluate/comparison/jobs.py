"""The work of a comparison: a process for each run and each evaluation, done once."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ssl_backbones.cleanup import run_to_end
from ssl_backbones.distributed import doing, say
from ssl_backbones.evaluate.comparison.comparison import Comparison, ComparisonError, Row
from ssl_backbones.evaluate.comparison.images import check_images
from ssl_backbones.evaluate.comparison.table import collect, draw, markdown, plain
from ssl_backbones.files import make_folder, without_links, write_file, write_json

PYTHON = (sys.executable,)


@dataclass(frozen=True)
class Job:
    """A command of the package as a process of its own."""

    words: tuple[str, ...]
    done: Path
    """The file that it leaves when it has finished."""
    log: Path
    needed: bool = False
    """True if nothing that follows it in its row can be done without it."""
    alone: bool = False
    """True if one process does it, however many others are launched in."""


def jobs(comparison: Comparison, row: Row, seed: int) -> Iterator[Job]:
    """All that a row needs for one seed, in order."""
    asked = ("--data", comparison.data, *(("--validation", comparison.validation) if comparison.validation else ()))
    model = (row.model, *(("--random",) if row.random else ()))
    if row.recipe:
        pairs, run = comparison.pairs_file(row, seed), comparison.run_folder(row, seed)
        if pairs:
            mined = (
                "mine-pairs",
                comparison.pairs_model(row, seed),
                "--data",
                comparison.data,
                *comparison.selection,
                *comparison.reading,
                "--out",
                str(pairs),
            )
            yield Job(mined, pairs, Path(f"{pairs}.log"), needed=True, alone=True)
        theirs = (*(("--method.pairs", str(pairs)) if pairs else ()), *comparison.words, *row.words)
        words = ("pretrain", row.recipe, *asked, "--seed", str(seed), "--out", str(run), *theirs)
        yield Job(words, run / "results.json", Path(f"{run}.log"), needed=True)
        model = (str(run),)
    for column in comparison.columns:
        done = comparison.results(row, column, seed)
        size = ("--size", str(row.size)) if row.size else ()
        theirs = (*column.words, *comparison.selection, *comparison.reading, *size)
        words = ("evaluate", column.protocol, *model, *asked, "--seed", str(seed), "--out", str(done.parent), *theirs)
        yield Job(words, done, Path(f"{done.parent}.log"))


def compare(comparison: Comparison, launch: tuple[str, ...] = PYTHON) -> list[Job]:
    """Do all that is not done yet, seed by seed, keeping the table up to date; the jobs that failed.

    `launch` starts a module, as Python and `accelerate launch` do. Raises ComparisonError where a library is missing
    that the table needs, and for other images than those of what is done already, before any work.
    """
    if find_spec("matplotlib") is None:
        raise ComparisonError("matplotlib is not installed: pip install 'ssl-backbones[viz]'")
    check_images(comparison)
    failed: list[Job] = []
    for seed in comparison.seeds:
        for row in sorted(comparison.rows, key=comparison.wants_pairs):  # mined by a row that is trained before
            for job in jobs(comparison, row, seed):
                if job.done.exists():
                    continue
                say(f"{row.label}, seed {seed}: {shlex.join(job.words)}")
                if code := carried_out(job, launch):
                    failed.append(job)
                    say(f"  ended with {code}; see {job.log}")
                    if job.needed:
                        break
            save(comparison)
    save(comparison)
    return failed


def carried_out(job: Job, launch: tuple[str, ...]) -> str:
    """Start a job and wait for it; how it ended, "" if well."""
    make_folder(job.log.parent)
    began = job.log.stat().st_size if job.log.exists() else 0
    with open(job.log, "ab", opener=without_links) as log, doing(lambda: f"  {last_line(job.log, began)}"):
        code = run_to_end([*(PYTHON if job.alone else launch), "-m", "ssl_backbones", *job.words], log)
    return "" if not code and job.done.exists() else str(code)


def last_line(log: Path, began: int) -> str:
    """The last line that a job wrote into its log behind so many bytes, or that it has begun."""
    with open(log, "rb") as file:
        file.seek(max(began, file.seek(0, os.SEEK_END) - 4096))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "begun")


def save(comparison: Comparison) -> None:
    """Write table.md, table.json and table.png as they stand."""
    table = collect(comparison)
    comparison.out.mkdir(parents=True, exist_ok=True)
    write_file(comparison.out / "table.md", markdown(comparison, table).encode())
    write_json(comparison.out / "table.json", plain(comparison, table))
    draw(comparison, table, comparison.out / "table.png")
