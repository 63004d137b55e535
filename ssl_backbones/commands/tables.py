"""Show the result tables of the papers, with the numbers measured here beside theirs.

Examples:
    ssl-backbones tables
    ssl-backbones tables lewel-1 --results results/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssl_backbones.hub.evaluations import place
from ssl_backbones.refusal import Refusal
from ssl_backbones.registry.image_sets import known_by
from ssl_backbones.registry.paper_table import Table
from ssl_backbones.registry.tables import TABLES, table_of
from ssl_backbones.runs.papers_figures import papers_figures
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
    print("\n".join(lines(table, measured(options.results))))


def measured(folders: tuple[Path, ...]) -> dict[tuple[Table, str, str], str]:
    """Our numbers in percent, by table, label of the row and column, from the results below some folders.

    They name their images where these are not known to be the table's; those on images known to be others are left out.
    """
    if missing := next((folder for folder in folders if not folder.is_dir()), None):
        raise NoFolderError(f"--results has {str(missing)!r}, which is no folder: name one with evaluations in it")
    found: dict[tuple[Table, str, str], str] = {}
    for path in (path for folder in folders for path in sorted(folder.rglob("results.json"))):
        results = read_results(path, "delete it, or name another folder with --results")
        for number, figure in papers_figures(results):
            images = (results.get("data") or {}).get("fingerprint")
            if (known := known_by(images)) and known.name != figure.column.images:
                continue
            cell = figure.table, figure.row.label, figure.column.name
            if known or cell not in found:
                found[cell] = spelled(results["numbers"][number], ".1f", 100) + (
                    "" if known else f" on {place(results)}"
                )
    return found


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
