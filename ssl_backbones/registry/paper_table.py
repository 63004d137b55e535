"""The form of a paper's table of results: figures in percent by row and column, and what measures them here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One figure of each row, and the evaluation that measures it here."""

    name: str
    protocol: str = ""
    """As results.json has it, or its beginning: "linear (lewel_b)"; empty where nothing here measures it."""
    number: str = "top-1"
    """The name of the number in results.json."""
    images: str = ""
    """The name of the images that it is measured on."""


@dataclass(frozen=True)
class Row:
    """The figures that the paper states of one network."""

    label: str
    figures: tuple[float | None, ...]
    recipe: str = ""
    """The name of the recipe that trains it; empty where there is none."""
    protocol: str = ""
    """Takes the place of the columns' protocol, where rows of one table are measured by different ones."""
    number: str = ""
    """Takes the place of the columns' number, likewise."""


@dataclass(frozen=True)
class Table:
    """A table of a paper."""

    paper: str
    place: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""

    @property
    def name(self) -> str:
        """The table as one asks for it: lewel-1."""
        return f"{self.paper}-{self.place.rpartition(' ')[2]}".lower()

    @property
    def figures(self) -> Iterator[Figure]:
        """The figures that are stated, row by row."""
        for row in self.rows:
            for column, value in zip(self.columns, row.figures, strict=True):
                if value is not None:
                    yield Figure(self, row, column, value)


@dataclass(frozen=True)
class Figure:
    """A paper's figure for one number of an evaluation."""

    table: Table
    row: Row
    column: Column
    value: float

    @property
    def protocol(self) -> str:
        """The evaluation that measures it here, or the beginning of its name; empty where nothing does."""
        return self.row.protocol or self.column.protocol

    @property
    def number(self) -> str:
        """The name of the number in results.json."""
        return self.row.number or self.column.number

    def __str__(self) -> str:
        return f"{self.value:g} ({self.table.paper}, {self.table.place}: {self.table.caption}; {self.column.name})"
