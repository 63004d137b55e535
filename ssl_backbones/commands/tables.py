"""Show the result tables of the papers, with the numbers measured here beside theirs.

Examples:
    ssl-backbones tables
    ssl-backbones tables lewel-1 --results results/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_backbones.hub.evaluations import place
from ssl_backbones.refusal import Refusal
from ssl_backbones.registry.image_sets import Data, known_by
from ssl_backbones.registry.paper_table import Table
from ssl_backbones.registry.tables import TABLES, table_of
from ssl_backbones.runs.papers_figures import figures_meant, instead, papers_figures
from ssl_backbones.runs.results import NOT_MEASURED, read_results, spelled
from ssl_backbones.typed.values import nearest
from ssl_backbones.typed.words import Positional


class NoFolderError(Refusal, ValueError):
    """A place of results that is no folder."""


class UnknownTableError(Refusal, ValueError):
    """A name that no table has."""


@dataclass(frozen=True)
class Options:
    """The table."""

    table: Positional[str] = ""
    """Name of a table, such as lewel-1. Default: list all tables."""
    results: tuple[Path, ...] = ()
    """Folders of evaluations, searched for results.json of the networks of the table."""


def run(options: Options) -> None:
    """Print the list of tables, or one with ours beside the paper's figures; UnknownTableError for another name."""
    if not options.table:
        print("\n".join(f"{table.name:<14} {table.paper}, {table.place}: {table.caption}" for table in TABLES))
        return
    table = table_of(options.table)
    if table is None:
        names = [table.name for table in TABLES]
        raise UnknownTableError(
            f"no table is called {options.table!r}{nearest(options.table, names)}; it is one of {', '.join(names)}"
        )
    evaluations = read(options.results)
    print("\n".join([*lines(table, measured(evaluations.values())), *left_out(table, evaluations)]))


def read(folders: tuple[Path, ...]) -> dict[Path, dict[str, Any]]:
    """The results of the evaluations below some folders, by folder; NoFolderError for what is none."""
    if missing := next((folder for folder in folders if not folder.is_dir()), None):
        raise NoFolderError(f"--results has {str(missing)!r}, which is no folder: name one with evaluations in it")
    files = (path for folder in folders for path in sorted(folder.rglob("results.json")))
    return {path.parent: read_results(path, "delete it, or name another folder with --results") for path in files}


def measured(evaluations: Iterable[dict[str, Any]]) -> dict[tuple[Table, str, str], str]:
    """Our numbers in percent, by table, label of the row and column, from the results of evaluations.

    They name their images where these are not known to be the table's; those on images known to be others are left out.
    """
    found: dict[tuple[Table, str, str], str] = {}
    for results in evaluations:
        for number, figure in papers_figures(results):
            known = images_of(results)
            if known and known.name != figure.column.images:
                continue
            cell = figure.table, figure.row.label, figure.column.name
            if known or cell not in found:
                found[cell] = spelled(results["numbers"][number], ".1f", 100) + (
                    "" if known else f" on {place(results)}"
                )
    return found


def left_out(table: Table, evaluations: Mapping[Path, dict[str, Any]]) -> Iterator[str]:
    """A sentence for each evaluation of a row of the table that does not stand there, with what keeps it out."""
    for folder, results in evaluations.items():
        meant = [figure for _, figure in figures_meant(results) if figure.table == table]
        known, reason = images_of(results), instead(results)
        if meant and not reason and known and known.name not in [figure.column.images for figure in meant]:
            reason = f"it is of {known.name}, and the table of {meant[0].column.images}"
        if meant and reason:
            yield f"{folder} is not in the table: {reason}."


def images_of(results: Mapping[str, Any]) -> Data | None:
    """The images that an evaluation is of; None where they are not known."""
    return known_by((results.get("data") or {}).get("fingerprint"))


def lines(table: Table, ours: dict[tuple[Table, str, str], str]) -> Iterator[str]:
    """The lines of a table: the paper's figures, and ours beside each that something here measures."""
    yield f"{table.paper}, {table.place}: {table.caption}"
    head = ["", *(text for column in table.columns for text in (column.name, "here"))]
    rows = [head]
    for row in table.rows:
        cells = [row.label]
        for column, figure in zip(table.columns, row.figures, strict=True):
            cells += ["-" if figure is None else f"{figure:g}"]
            cells += [ours.get((table, row.label, column.name), NOT_MEASURED)]
        rows.append(cells)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
    if table.note:
        yield table.note
