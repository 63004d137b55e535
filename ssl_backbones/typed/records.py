"""The forms of results.json and recipe.json, as far as anything reads them: what is missing or of another type is said.

Every field may be missing, as older versions did not write it, unless a class says that it is needed beside another.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, TypedDict

from ssl_backbones.checks import check
from ssl_backbones.typed.values import check_form
from ssl_backbones.typed.verdicts import CountedForm, NumberForm, check_verdict


class Tried(TypedDict):
    """A learning rate that was searched, its value None where training diverged."""

    lr: float
    value: float | None


class Search(TypedDict):
    """The search of a learning rate."""

    chosen: float
    by: str
    chosen_on: str
    tried: list[Tried]


class ShareForm(TypedDict):
    """A number of so many: its interval is known."""

    value: float
    low: float
    high: float
    of: int


class NeighboursForm(ShareForm):
    """A k-NN accuracy."""

    k: int


class ImagesForm(TypedDict, total=False):
    """An account of images."""

    source: str
    images: int
    fingerprint: str
    whole_fingerprint: str


class Measured(TypedDict):
    """The part of results.json that it cannot be without."""

    numbers: dict[str, NumberForm]


class ResultsForm(Measured, total=False):
    """All of results.json that something reads."""

    protocol: str
    model: str
    architecture: str
    recipe: str
    weights_sha256: str
    date: str
    seed: int
    command: str
    settings: dict[str, Any]
    data: ImagesForm
    validation: ImagesForm | None
    compute: dict[str, Any]
    versions: dict[str, Any]
    altered: dict[str, list[Any]]
    engine: str
    steps: int
    seconds: float
    epochs: float
    unreadable: list[str] | int
    standard: dict[str, str]
    papers: dict[str, list[str]]
    learning_rates: Search
    learned_from_these_labels: bool


KnnNumbers = TypedDict("KnnNumbers", {"knn before": ShareForm, "knn": NeighboursForm, "knn gain": ShareForm})


class KnnForm(TypedDict):
    """All that stands beside the k-NN accuracy of a run."""

    numbers: KnnNumbers
    kind: str
    chance: float
    queries: CountedForm
    bank: CountedForm


class OldKnnForm(TypedDict):
    """The k-NN accuracy of a run as 0.1.0.dev0 wrote it."""

    before: float
    after: float
    after_95: tuple[float, float]
    gain: float
    gain_95: tuple[float, float]
    protocol: str
    chance: float
    k: int
    queries: int
    bank: int


class OldNumberForm(TypedDict):
    """A number before and after training as 0.1.0.dev0 wrote it."""

    before: float
    after: float


class OldResultsForm(TypedDict, total=False):
    """Results as 0.1.0.dev0 wrote them."""

    knn: OldKnnForm
    std: OldNumberForm
    rank: OldNumberForm


class OptimizerForm(TypedDict, total=False):
    """The optimiser of a recipe."""

    kind: str
    lr: float
    lr_rule: str
    weight_decay: float


class ScheduleForm(TypedDict, total=False):
    """The schedule of a recipe."""

    kind: str
    warmup_epochs: float


class PromiseForm(TypedDict, total=False):
    """The promise of a recipe."""

    paper: str
    table: str
    data: str
    not_stated: str


class NamedForm(TypedDict):
    """The fields that the recipe of a method cannot be without."""

    name: str
    model: str


class RecipeForm(TypedDict, total=False):
    """All of recipe.json that a page or a card tells."""

    name: str
    model: str
    method: dict[str, Any]
    optimizer: OptimizerForm
    schedule: ScheduleForm
    promise: PromiseForm
    size: int
    epochs: float
    batch_size: int
    seed: int
    data: str
    out: str
    reencode: int


def check_recipe(recipe: Mapping[str, Any]) -> None:
    """Refuse a recipe that a page or a card could not tell: ValueError."""
    check_form(RecipeForm, recipe)
    if "method" in recipe:
        check_form(NamedForm, recipe)


class TunedOptimizer(TypedDict):
    """The optimiser of a training with labels."""

    kind: str
    lr: float
    lr_rule: str


class TunedSettings(TypedDict):
    """The settings of a training with labels."""

    optimizer: TunedOptimizer


class TunedForm(TypedDict):
    """All of a training with labels that its page tells."""

    protocol: str
    model: str
    random_weights: bool
    settings: TunedSettings
    data: CountedForm
    validation: CountedForm
    steps: int


ANEW = "start the command that wrote it once more, which makes it anew, or name another folder"
"""The way out of results that were cut short."""
RESTORE = "restore it, or name another folder"
"""The way out of other records that cannot be read."""


def check_results(results: Mapping[str, Any]) -> None:
    """Refuse results that something could not read, of today's form or of 0.1.0.dev0: ValueError."""
    if "numbers" not in results:
        check_form(OldResultsForm, results)
        return
    check_form(ResultsForm, results)
    numbers = results["numbers"]
    for name, number in numbers.items():
        if "of" in number or name.startswith("knn gain"):
            check_form(ShareForm, number, f"numbers.{name}")
    if "knn" in numbers:
        check_form(KnnForm, results)
    check_verdict(results)
    shlex.split(results.get("command", ""))
    for name, pair in results.get("altered", {}).items():
        check(len(pair) == 2, f"altered.{name}", pair, "the recipe's value and the run's")
