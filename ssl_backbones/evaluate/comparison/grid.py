"""What is compared with what: a TOML file as typed values."""

from __future__ import annotations

import hashlib
import re
import shlex
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ssl_backbones import recipes
from ssl_backbones.refusal import Refusal
from ssl_backbones.typed.values import from_plain


class GridError(Refusal, ValueError):
    """A grid that cannot be read, or does not hang together."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a recipe that is run, or a model that is taken as it is."""

    label: str
    recipe: str = ""
    """The recipe to pretrain by, once for each seed."""
    model: str = ""
    """In place of a recipe: a registered name, hf-hub:org/name, or a folder."""
    random: bool = False
    """Whether that model has random weights, drawn by the seed."""
    options: str = ""
    """What else is said to pretrain.py, after what the grid says for all. Words in braces are filled in; {run:LABEL} is
    the folder of the run, with the same seed, of a row above."""
    makes: str = ""
    """The name of a file that the recipe needs; {made} stands for where it lies, which is below `out`."""
    by: str = ""
    """The script of this folder, and its words, that makes the file where it is not there."""


@dataclass(frozen=True)
class Column:
    """One number of each row: a script's protocol, how it is asked, and which of its numbers is shown."""

    label: str
    number: str
    """As results.json names it."""
    protocol: str
    """The script and its sub-command: "evaluate.py knn"."""
    options: str = ""
    note: str = ""
    """What a reader must know to compare it with a published number."""
    percent: bool = True


@dataclass(frozen=True)
class Grid:
    """Rows, columns and seeds on one dataset."""

    title: str
    data: str
    out: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    validation: str = ""
    seeds: tuple[int, ...] = (0,)
    options: str = ""
    """Said to every pretrain.py."""
    launch: str = ""
    """What starts a script, such as "accelerate launch"; the Python that runs this, where it is empty."""
    notes: str = ""
    """Stands below the table."""

    def __post_init__(self) -> None:
        for name in ("rows", "columns", "seeds"):
            if not getattr(self, name):
                raise GridError(f"the grid has no {name}: give at least one")
        for name, labels in (("row", [r.label for r in self.rows]), ("column", [c.label for c in self.columns])):
            twice = [label for label, count in Counter(labels).items() if count > 1]
            if twice:
                raise GridError(f"the {name} {twice[0]!r} stands twice in the grid: label one of them differently")
        if len(set(self.seeds)) < len(self.seeds):
            raise GridError(f"a seed stands twice among {self.seeds}: give each once")
        for row in self.rows:
            check_row(row)

    def run_folder(self, row: Row, seed: int) -> Path:
        """Where a row's pretraining writes; one of other words writes elsewhere, so that no old one is taken for it."""
        return Path(self.out) / row.recipe / f"seed{seed}.{self.run_digest(row)}"

    def run_digest(self, row: Row) -> str:
        """What tells a row's pretraining from others of its recipe, whatever the seed."""
        return self.digest(row.recipe, self.options, row.options, row.makes, row.by)

    def made_file(self, row: Row, seed: int) -> Path:
        """Where the file lies that a row needs; rows that make it by the same words share it."""
        digest = self.digest(row.makes, row.by.replace("{seed}", str(seed)))
        return Path(self.out) / f"{Path(row.makes).stem}.{digest}{Path(row.makes).suffix}"

    def cell_folder(self, row: Row, column: Column, seed: int) -> Path:
        """Where an evaluation writes, named after what it asks and, of a recipe, after the run that it asks about."""
        digest = self.digest(column.protocol, column.options, row.model)
        name = f"{slug(column.protocol.partition(' ')[2])}.{digest}"
        if row.recipe:
            run = self.run_folder(row, seed)
            return run.with_name(f"{run.name}.{name}")
        return Path(self.out) / f"{slug(row.model)}{'.random' if row.random else ''}" / f"seed{seed}.{name}"

    def digest(self, *texts: str) -> str:
        """Eight letters that stand for the texts and the data. Braces are in them as they stand: `out` may be moved."""
        return hashlib.sha256("\0".join((self.data, self.validation, *texts)).encode()).hexdigest()[:8]

    def filled(self, text: str, seed: int, row: Row | None = None) -> list[str]:
        """The words of an option's text, with {data}, {out}, {seed} and, where the row makes one, {made} filled in."""
        known = {"data": self.data, "out": self.out, "seed": str(seed)}
        if row and row.makes:
            known["made"] = str(self.made_file(row, seed))
        unknown = [name for name in re.findall(r"\{(\w*|run:[^{}]*)\}", text) if name not in known]
        if unknown:
            names = ", ".join(f"{{{name}}}" for name in known)
            raise GridError(f"{{{unknown[0]}}} in {text!r} stands for nothing: choose from {names}")
        return [re.sub(r"\{(\w+)\}", lambda name: known[name[1]], word) for word in shlex.split(text)]


def check_row(row: Row) -> None:
    """Refuse a row that is neither a recipe nor a model, or whose recipe is unknown."""
    if bool(row.recipe) == bool(row.model):
        raise GridError(f"the row {row.label!r} must name either a recipe or a model")
    if row.recipe and row.random:
        raise GridError(f"the row {row.label!r} has random weights, which a recipe has not: name a model")
    if bool(row.makes) != bool(row.by):
        raise GridError(f"the row {row.label!r} must say both what is made and by what, or neither")
    if row.makes and (Path(row.makes).name != row.makes or "{" in row.makes or "{made}" not in row.by):
        raise GridError(
            f"the row {row.label!r} makes {row.makes!r} by {row.by!r}: give a file's name alone, such as pairs.parquet,"
            " and say {made} where the script is told its path"
        )
    if row.recipe:
        try:
            recipes.get(row.recipe)
        except ValueError as error:
            raise GridError(f"the row {row.label!r}: {error}") from error


def slug(text: str) -> str:
    """The text as part of a folder's name."""
    return re.sub(r"[^\w.-]+", "_", text).strip("_.")


def read_grid(path: Path, **overrides: Any) -> Grid:
    """The grid that a TOML file holds; what stands in `overrides` and is not None replaces a field of it."""
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GridError(f"{path} cannot be read ({error.strerror}): name a TOML file with the grid") from error
    except ValueError as error:
        raise GridError(f"{path} is not TOML ({error})") from error
    try:
        grid = with_runs(from_plain(Grid, {"title": path.stem} | plain | stated(overrides)))
    except GridError as error:
        raise GridError(f"{path}: {error}") from error
    except ValueError as error:
        raise GridError(f"{path}: {str(error).rstrip('.')}") from error
    return grid


def with_runs(grid: Grid) -> Grid:
    """The grid with a run's folder, of the same seed, in place of each {run:LABEL} of the rows below that run's."""
    folders: dict[str, str] = {}
    rows: list[Row] = []
    for row in grid.rows:
        told = replace(row, options=with_folders(row.options, folders), by=with_folders(row.by, folders))
        rows.append(told)
        if row.recipe:
            folders[row.label] = f"{{out}}/{row.recipe}/seed{{seed}}.{grid.run_digest(told)}"
    return replace(grid, rows=tuple(rows))


def with_folders(text: str, folders: Mapping[str, str]) -> str:
    """The text with the folders by their rows' labels."""
    for label in re.findall(r"\{run:([^{}]*)\}", text):
        if label not in folders:
            above = ", ".join(map(repr, folders)) or "none"
            raise GridError(f"{{run:{label}}} in {text!r} names no recipe's row above its own: choose from {above}")
        text = text.replace(f"{{run:{label}}}", folders[label])
    return text


def stated(overrides: dict[str, Any]) -> dict[str, Any]:
    """What replaces a field of the file, as TOML would have it."""
    assert set(overrides) <= {field.name for field in fields(Grid)}
    return {
        name: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for name, value in overrides.items()
        if value is not None
    }


def only(grid: Grid, labels: Sequence[str]) -> Grid:
    """The grid with some of its rows."""
    known = [row.label for row in grid.rows]
    for label in labels:
        if label not in known:
            raise GridError(f"{label!r} is no row of the grid: choose from {', '.join(map(repr, known))}")
    return replace(grid, rows=tuple(row for row in grid.rows if row.label in labels)) if labels else grid
