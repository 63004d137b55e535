"""Means and intervals of a comparison's numbers, as Markdown, as JSON, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_backbones.credentials import without_credentials
from ssl_backbones.evaluate.comparison.comparison import Column, Comparison, ComparisonError, Row
from ssl_backbones.hub.markup import cell, plain_text
from ssl_backbones.metrics import student_interval
from ssl_backbones.runs.results import read_results
from ssl_backbones.visualizers.figures import new_figure, save_figure

DOT = "#1b6ca8"
LINE = "#c8d3dc"


@dataclass(frozen=True)
class Cell:
    """One number of the table: the mean over the seeds, and its interval."""

    mean: float
    low: float | None
    high: float | None
    seeds: int
    over: str
    """Source of the interval: seeds, or the images of one run's evaluation."""


Table = dict[tuple[str, str], Cell]
"""By the labels of row and column; a cell that has not been measured is absent."""


def collect(comparison: Comparison) -> Table:
    """All that has been measured so far; raises ComparisonError for results without the number of a column."""
    found = {}
    for row in comparison.rows:
        for column in comparison.columns:
            numbers = [number for seed in comparison.seeds if (number := read_number(comparison, row, column, seed))]
            if numbers:
                found[row.label, column.label] = cell_of(numbers, fixed=bool(row.model) and not row.random)
    return found


def read_number(comparison: Comparison, row: Row, column: Column, seed: int) -> Mapping[str, Any] | None:
    """The number of one evaluation, with its interval; None where it has not been measured."""
    path = comparison.results(row, column, seed)
    if not path.exists():
        return None
    numbers = read_results(path, "delete it, and the same command measures it again", ComparisonError)["numbers"]
    if column.number not in numbers:
        raise ComparisonError(
            f"{path} holds no number {column.number!r} for the column {column.label!r}: choose from "
            f"{', '.join(map(repr, numbers))}"
        )
    number: Mapping[str, Any] = numbers[column.number]
    return number


def cell_of(numbers: Sequence[Mapping[str, Any]], fixed: bool = False) -> Cell:
    """The mean of some runs with Student's interval over them; of one run, or of equal ones, a run's own interval.

    So of a fixed network too, of which seeds only choose what images a setting is chosen on.
    """
    values = [number["value"] for number in numbers]
    if len(set(values)) == 1 or fixed:
        return Cell(values[0], numbers[0].get("low"), numbers[0].get("high"), len(values), "images")
    interval = student_interval(values)
    return Cell(interval.value, interval.low, interval.high, len(values), "seeds")


def markdown(comparison: Comparison, table: Table) -> str:
    """The table as the papers print theirs, the best of each column in bold, with what is needed to read it."""
    best = {column.label: best_row(comparison, table, column) for column in comparison.columns}
    lines = [
        f"# {plain_text(comparison.title)}",
        "",
        f"| | {' | '.join(cell(plain_text(column.label)) for column in comparison.columns)} |",
        f"|---|{'--:|' * len(comparison.columns)}",
    ]
    for row in comparison.rows:
        cells = []
        for column in comparison.columns:
            text = printed(table.get((row.label, column.label)), column, len(comparison.seeds))
            cells.append(f"**{text}**" if best[column.label] == row.label else text)
        lines.append(f"| {cell(plain_text(row.label))} | {' | '.join(cells)} |")
    lines += ["", *(f"{column.label}: {column.note}" for column in comparison.columns if column.note)]
    return (
        "\n".join([*lines, caption(comparison, table), *([comparison.notes.strip()] if comparison.notes else [])])
        + "\n"
    )


def best_row(comparison: Comparison, table: Table, column: Column) -> str | None:
    """The row with the highest mean of a column; None where fewer than two are known, or higher is not better."""
    if not column.percent:
        return None
    known = [row.label for row in comparison.rows if (row.label, column.label) in table]
    return max(known, key=lambda label: table[label, column.label].mean) if len(known) > 1 else None


def printed(cell: Cell | None, column: Column, seeds: int = 1) -> str:
    """A cell as a reader sees it: 63.1 ± 1.5, the half-width of the interval where both sides are alike to a digit.

    One that has not all of so many `seeds` says how many it has.
    """
    if cell is None:
        return "not measured"
    if cell.seeds < seeds:
        return f"{printed(cell, column)} ({cell.seeds} {'seed' if cell.seeds == 1 else 'seeds'})"
    scale, digits = (100, 1) if column.percent else (1, 3)
    mean = f"{scale * cell.mean:.{digits}f}"
    if cell.low is None or cell.high is None:
        return mean
    down, up = (f"{scale * side:.{digits}f}" for side in (cell.mean - cell.low, cell.high - cell.mean))
    return f"{mean} ± {up}" if up == down else f"{mean} (-{down}, +{up})"


def caption(comparison: Comparison, table: Table) -> str:
    """A sentence on the data and the intervals."""
    kinds = {cell.over for cell in table.values() if cell.low is not None}
    seeds = ", ".join(map(str, comparison.seeds))
    said = {
        "seeds": f"mean over seeds {seeds} with Student's 95% interval: what other images would give is not in it",
        "images": "one seed, with the evaluation's own 95% interval: what another seed would give is not in it",
    }
    return (
        f"Data: {plain_text(without_credentials(comparison.data))}; "
        + "; where only one seed was run, or all found the same: ".join(said[kind] for kind in sorted(kinds)[::-1])
    )


def plain(comparison: Comparison, table: Table) -> dict[str, Any]:
    """The table as JSON has it."""
    return {
        "title": comparison.title,
        "seeds": list(comparison.seeds),
        "columns": [
            {"label": c.label, "number": c.number, "asked": " ".join(["evaluate", c.protocol, *c.words])}
            for c in comparison.columns
        ],
        "rows": [
            {
                "label": row.label,
                "recipe": row.recipe or None,
                "model": row.model or None,
                "cells": {
                    column.label: vars(table[row.label, column.label])
                    for column in comparison.columns
                    if (row.label, column.label) in table
                },
            }
            for row in comparison.rows
        ],
    }


def draw(comparison: Comparison, table: Table, path: Path) -> None:
    """Write a dot and an interval for each number, a panel for each column, as png, pdf or svg by the file's ending."""
    rows, columns = len(comparison.rows), len(comparison.columns)
    figure = new_figure(width=2.4 + 3.2 * columns, height=0.9 + 0.3 * rows)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    for panel, column in zip(panels, comparison.columns, strict=True):
        scale = 100 if column.percent else 1
        for height, row in enumerate(comparison.rows):
            cell = table.get((row.label, column.label))
            panel.axhline(height, color=LINE, linewidth=0.6, zorder=0)
            if cell is None:
                continue
            if cell.low is not None and cell.high is not None:
                panel.plot([scale * cell.low, scale * cell.high], [height, height], color=DOT, linewidth=2, alpha=0.5)
            panel.plot(scale * cell.mean, height, "o", color=DOT, markersize=5)
        panel.set_title(column.label, fontsize=10)
        panel.set_xlabel("%" if column.percent else column.number, fontsize=9)
        panel.set_yticks(range(rows), [row.label for row in comparison.rows])
        panel.tick_params(labelsize=9, length=0)
        panel.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_ylim(rows - 0.4, -0.6)
    save_figure(figure, path, dpi=160)
