"""Means and intervals of a grid's numbers, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from ssl_backbones.evaluate.comparison.grid import Column, Grid, GridError, Row

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Cell:
    """One number of the table: the mean over the seeds, and its interval."""

    mean: float
    low: float | None
    high: float | None
    seeds: int
    over: str
    """What the interval speaks of: seeds, or the images of one run's evaluation."""


Table = dict[tuple[str, str], Cell]
"""By the labels of row and column; a cell that has not been measured is absent."""


def collect(grid: Grid) -> Table:
    """What has been measured so far."""
    found = {}
    for row in grid.rows:
        for column in grid.columns:
            numbers = [number for seed in grid.seeds if (number := read_number(grid, row, column, seed))]
            if numbers:
                found[row.label, column.label] = cell_of(numbers)
    return found


def read_number(grid: Grid, row: Row, column: Column, seed: int) -> Mapping[str, Any] | None:
    """The number of one evaluation, with its interval; None where it has not been measured."""
    path = grid.cell_folder(row, column, seed) / "results.json"
    if not path.exists():
        return None
    numbers = json.loads(path.read_bytes())["numbers"]
    if column.number not in numbers:
        raise GridError(
            f"{path} holds no number {column.number!r} for the column {column.label!r}: choose from "
            f"{', '.join(map(repr, numbers))}"
        )
    number: Mapping[str, Any] = numbers[column.number]
    return number


def cell_of(numbers: Sequence[Mapping[str, Any]]) -> Cell:
    """The mean of some runs with Student's interval over them; of one run, its own interval."""
    values = [number["value"] for number in numbers]
    mean = fmean(values)
    if len(values) == 1:
        return Cell(mean, numbers[0].get("low"), numbers[0].get("high"), 1, "images")
    reach = student().ppf(0.5 + CONFIDENCE / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Cell(mean, mean - reach, mean + reach, len(values), "seeds")


def student() -> Any:
    """Student's t distribution; GridError where scipy is not installed."""
    try:
        from scipy.stats import t
    except ImportError as error:
        raise GridError("scipy is not installed: pip install 'ssl-backbones[viz]'") from error
    return t


def markdown(grid: Grid, table: Table) -> str:
    """The table as the papers print theirs, the best of each column in bold, with what is needed to read it."""
    best = {column.label: best_row(grid, table, column) for column in grid.columns}
    lines = [
        f"# {grid.title}",
        "",
        f"| | {' | '.join(column.label for column in grid.columns)} |",
        f"|---|{'--:|' * len(grid.columns)}",
    ]
    for row in grid.rows:
        cells = []
        for column in grid.columns:
            text = printed(table.get((row.label, column.label)), column)
            cells.append(f"**{text}**" if best[column.label] == row.label else text)
        lines.append(f"| {row.label} | {' | '.join(cells)} |")
    lines += ["", *(f"{column.label}: {column.note}" for column in grid.columns if column.note)]
    return "\n".join([*lines, caption(grid, table), *([grid.notes.strip()] if grid.notes else [])]) + "\n"


def best_row(grid: Grid, table: Table, column: Column) -> str | None:
    """The row with the highest mean of a column; None where fewer than two are known."""
    known = [row.label for row in grid.rows if (row.label, column.label) in table]
    return max(known, key=lambda label: table[label, column.label].mean) if len(known) > 1 else None


def printed(cell: Cell | None, column: Column) -> str:
    """A cell as a reader sees it: 63.1 ± 1.5, the half-width of the interval where both sides are alike to a digit."""
    if cell is None:
        return "not measured"
    scale, digits = (100, 1) if column.percent else (1, 3)
    mean = f"{scale * cell.mean:.{digits}f}"
    if cell.low is None or cell.high is None:
        return mean
    down, up = (f"{scale * side:.{digits}f}" for side in (cell.mean - cell.low, cell.high - cell.mean))
    return f"{mean} ± {up}" if up == down else f"{mean} (-{down}, +{up})"


def caption(grid: Grid, table: Table) -> str:
    """What the intervals are."""
    kinds = {cell.over for cell in table.values() if cell.low is not None}
    said = {
        "seeds": f"mean over seeds {', '.join(map(str, grid.seeds))} with Student's 95% interval",
        "images": "one seed, with the evaluation's own 95% interval: what another seed would give is not in it",
    }
    return f"Data: {grid.data}; " + "; where only one seed was run: ".join(said[kind] for kind in sorted(kinds)[::-1])


def plain(grid: Grid, table: Table) -> dict[str, Any]:
    """The table as JSON has it."""
    return {
        "title": grid.title,
        "seeds": list(grid.seeds),
        "columns": [{"label": c.label, "number": c.number, "asked": f"{c.protocol} {c.options}"} for c in grid.columns],
        "rows": [
            {
                "label": row.label,
                "recipe": row.recipe or None,
                "model": row.model or None,
                "cells": {
                    column.label: vars(table[row.label, column.label])
                    for column in grid.columns
                    if (row.label, column.label) in table
                },
            }
            for row in grid.rows
        ],
    }
