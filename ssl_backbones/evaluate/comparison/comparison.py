"""A comparison as typed values: recipes to run and models as they are, seeds, and the evaluations of all of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ssl_backbones.catalogue.trial import WEIGHTS
from ssl_backbones.files import file_digest
from ssl_backbones.recipes.command_line import read_recipe
from ssl_backbones.recipes.recipe import FREE, Recipe
from ssl_backbones.refusal import Refusal
from ssl_backbones.typed.words import options_among

PROGRAM = "ssl-backbones compare"
NO_OTHER_RUN = FREE | {"seed"}
"""Fields of a recipe that do not make it another run; the data and the seed are named beside it."""
ITS_OWN = {"data", "out", "seed", "validation"}
"""Options that each run is given by the comparison."""


class ComparisonError(Refusal, ValueError):
    """A comparison that does not hang together, or whose results cannot be read."""


@dataclass(frozen=True)
class Row:
    """A line of the table: a recipe that is run for each seed, or a model that is taken as it is."""

    label: str
    recipe: str = ""
    model: str = ""
    """In place of a recipe: a registered name, a timm name, hf-hub:org/name, or a folder."""
    random: bool = False
    """Give that model random weights, drawn by the seed."""
    size: int | None = None
    """Side of the images that it is evaluated on; None for what its description says."""
    words: tuple[str, ...] = ()
    """Options of this recipe alone, as pretrain takes them."""

    def __post_init__(self) -> None:
        if bool(self.recipe) == bool(self.model):
            raise ComparisonError(f"the row {self.label!r} must name either a recipe or a model")
        if self.recipe and self.random:
            raise ComparisonError(f"the row {self.label!r} has random weights, which a recipe has not: name a model")


@dataclass(frozen=True)
class Column:
    """One number of each row: the protocol that finds it, and its name in results.json."""

    label: str
    protocol: str
    """Protocol of `evaluate`."""
    number: str
    note: str = ""
    """Needed to compare it with a published number."""
    words: tuple[str, ...] = ()
    """Options of the protocol."""
    percent: bool = True


@dataclass(frozen=True)
class Comparison:
    """Rows and columns on one dataset, over seeds."""

    title: str
    data: str
    out: Path
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    validation: str = ""
    seeds: tuple[int, ...] = (0,)
    words: tuple[str, ...] = ()
    """Options of every recipe."""
    pairs_from: str = ""
    """The row, by its label, or the model that pairs are mined by, for recipes that are trained on pairs; the first row
    whose recipe is not."""
    notes: str = ""
    """Stands below the table."""

    def __post_init__(self) -> None:
        for name in ("rows", "columns", "seeds"):
            if not getattr(self, name):
                raise ComparisonError(f"there are no {name} to compare: give at least one")
        for name, labels in (("row", self.rows), ("column", self.columns)):
            twice = [label for label, count in Counter(each.label for each in labels).items() if count > 1]
            if twice:
                raise ComparisonError(f"the {name} {twice[0]!r} stands twice: name it once, or label it differently")
        if len(set(self.seeds)) < len(self.seeds):
            raise ComparisonError(f"a seed stands twice among {self.seeds}: give each once")
        for row in self.rows:
            if taken := options_among((*self.words, *row.words), ITS_OWN):
                raise ComparisonError(
                    f"{taken[0]} would be alike in all runs, and the comparison gives each its own: "
                    "leave it out, and name seeds with --seeds"
                )
            if row.recipe:
                self.recipe(row)
                self.pairs_model(row, 0)

    def recipe(self, row: Row) -> Recipe:
        """The row's recipe with all its options; CommandLineError for one that it does not have."""
        return recipe_of((row.recipe, "--data", self.data, *self.words, *row.words))

    def pairs_model(self, row: Row, seed: int) -> str:
        """The model that the row's pairs are mined by, "" where its recipe needs none or names a file of them."""
        if getattr(self.recipe(row).method, "pairs", None) != "":
            return ""
        others = [other for other in self.rows if other.recipe and not hasattr(self.recipe(other).method, "pairs")]
        named = [other for other in others if other.label == self.pairs_from] if self.pairs_from else others
        if named:
            return str(self.run_folder(named[0], seed))
        if not self.pairs_from:
            raise ComparisonError(f"{row.recipe} is trained on pairs: name the model to mine them by with --pairs_from")
        return self.pairs_from

    def mines_itself(self) -> bool:
        """True where pairs are mined by a row's run, and not by a model from elsewhere."""
        return not self.pairs_from or any(row.recipe and row.label == self.pairs_from for row in self.rows)

    def wants_pairs(self, row: Row) -> bool:
        """True for a row whose recipe is trained on pairs that are mined here."""
        return bool(row.recipe and self.pairs_model(row, 0))

    def run_folder(self, row: Row, seed: int) -> Path:
        """The folder of a row's pretraining; another recipe, data or pairs have another, so that no run is mistaken."""
        plain = {name: value for name, value in self.recipe(row).to_dict().items() if name not in NO_OTHER_RUN}
        return self.out / row.recipe / f"seed{seed}.{self.digest(plain, *self.mined_by(row, seed))}"

    def pairs_file(self, row: Row, seed: int) -> Path | None:
        """The file of a row's pairs; rows that mine them by the same model share it. None where it needs none."""
        wanted = self.pairs_model(row, seed)
        return self.out / f"pairs.{self.digest(*self.mined_by(row, seed))}.parquet" if wanted else None

    def mined_by(self, row: Row, seed: int) -> tuple[str, ...]:
        """The model of a row's pairs: a run of the comparison by its folder, another by all that tells it."""
        model = self.pairs_model(row, seed)
        return (Path(model).name,) if self.mines_itself() or not model else (model, *digests_in(model))

    def results(self, row: Row, column: Column, seed: int) -> Path:
        """The results.json of an evaluation; another question has another, and so has another run or other weights."""
        weights = digests_in(row.model) if row.model and not row.random else ()
        name = f"{column.protocol}.{self.digest(column.protocol, column.words, row.size, row.model, *weights)}"
        if row.recipe:
            run = self.run_folder(row, seed)
            return run.with_name(f"{run.name}.{name}") / "results.json"
        model = f"{slug(row.model)}{'.random' if row.random else ''}"
        return self.out / model / f"seed{seed}.{name}" / "results.json"

    @property
    def selection(self) -> tuple[str, ...]:
        """The options that decide which images there are; mining and evaluations take them as pretraining does."""
        return options_among(self.words, {"classes", "hold_out", "in_chans", "max_pixels"})

    @property
    def channels(self) -> int:
        """Channels of images that keep all of theirs; 0 for RGB. ComparisonError for what is no number of them."""
        _, *said = options_among(self.words, {"in_chans"}) or ("", "0")
        if len(said) != 1 or not said[0].isdecimal():
            raise ComparisonError(f"--in_chans is {' '.join(said) or 'left empty'}, but must be a number of channels")
        return int(said[0])

    @property
    def reading(self) -> tuple[str, ...]:
        """The options of reading them, which all commands take alike, and which decide no number."""
        return options_among(self.words, {"workers"})

    def digest(self, *parts: Any) -> str:
        """Eight letters that stand for the parts and the data. `out` is not in them: it may be moved."""
        return hashlib.sha256(
            json.dumps([self.data, self.validation, *self.selection, *parts], sort_keys=True).encode()
        ).hexdigest()[:8]


def digests_in(model: str) -> list[str]:
    """The digests of the files of weights in a folder that a model names; empty for any other name."""
    folders = (folder for folder in (Path(model), Path(model) / "backbone") if (folder / "config.json").is_file())
    folder = next(folders, None)
    files = sorted(file for file in folder.iterdir() if file.name.endswith(WEIGHTS)) if folder else []
    return [digest_of(file, file.stat().st_mtime_ns) for file in files]


@cache
def digest_of(file: Path, changed: int) -> str:
    """The digest of a file that was last changed at that time, read once."""
    return file_digest(file)


@cache
def recipe_of(words: tuple[str, ...]) -> Recipe:
    """The recipe that the words of a pretraining name."""
    return read_recipe(words, PROGRAM, None)


def slug(text: str) -> str:
    """The text as part of a folder's name."""
    return re.sub(r"[^\w.-]+", "_", text).strip("_.")
