"""k-NN on frozen features: weighted votes by cosine similarity, k and temperature swept.

Wu et al., 2018. https://arxiv.org/abs/1805.01978. Every k and temperature is reported; none of them is picked by what
it gives on the images asked about. Without such images, each image is held against all the others, by each k that is
at most a quarter of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch

from ssl_backbones.checks import check, check_at_least
from ssl_backbones.data import ImageSourceError
from ssl_backbones.distributed import say
from ssl_backbones.evaluate.evaluation import Evaluation, chance, evaluation, one_by_one
from ssl_backbones.evaluate.labelled import Labelled, open_labelled
from ssl_backbones.evaluate.options import EvaluationOptions
from ssl_backbones.metrics import knn_sweep
from ssl_backbones.runs.results import Number, as_share, proportion
from ssl_backbones.shares import rows_at
from ssl_backbones.views import permutation

STANDARD = {"paper": (200, 0.07), "training": (20, 0.07)}
"""k and temperature of Wu et al., and of the accuracy that is logged while a backbone is trained."""
WORDS = {"paper": "as in the paper", "training": "as in training", "largest": "the largest k here"}
FOR_EACH = 4
"""Images for each neighbour that votes, at least, where each is held against the others: its own class lacks the vote
of the image itself, which tells against that class the more of all images vote."""


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationOptions):
    """The options of k-NN."""

    ks: tuple[int, ...] = (1, 5, 10, 20, 50, 100, 200)
    """Numbers of neighbours that vote; 20 and 200 are always tried. Where each image is held against the others, those
    above a quarter of their number are left out."""
    temperatures: tuple[float, ...] = (0.03, 0.07, 0.1, 0.2)
    """Temperatures of the votes; 0.07 is always tried."""
    choose_by: int = 10_000
    """Training images to choose k and the temperature with, each tested against the others; 0 for no choice."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(bool(self.ks) and min(self.ks) >= 1, "ks", self.ks, "at least 1 each")
        positive = bool(self.temperatures) and min(self.temperatures) > 0
        check(positive, "temperatures", self.temperatures, "above 0 each")
        check_at_least(self, choose_by=0)


def run(options: Options) -> dict[str, Any]:
    """The accuracy for every k and temperature, with its interval; that of a standard pair, class by class."""
    images, validation, source = open_labelled(options, "k-NN")
    with evaluation("knn", options, images, validation, source) as asked:
        if isinstance(asked, dict):
            return asked
        bank, queries = asked.learnt_from(once=validation is None), asked.asked_about()
        if len(bank) < 2:
            raise ImageSourceError(f"{options.data} has one labelled image, and k-NN needs at least two: add some")
        grid = Grid(options, asked, bank, among_themselves=queries is None)
        if queries is None:
            sample = np.arange(len(bank))
            numbers, more = results(grid, grid.among_themselves(sample), bank.labels)
            kind, chosen = "each image against the others", {}
        else:
            numbers, more = results(grid, grid.named(queries), queries.labels)
            kind, chosen = "held-out queries", chosen_by_bank(grid, numbers, options)
        account = {"bank": bank.account, "queries": (queries or bank).account, "kind": kind, "chosen": chosen or None}
        if chosen:
            numbers["chosen"] = numbers[chosen["name"]]
        left = asked.save_results(numbers, more | account)
    say(summary(left))
    return left


class Grid:
    """Every k with every temperature, on one bank.

    Where its images are held against each other, larger k than a share of them are left out.
    """

    def __init__(self, options: Options, asked: Evaluation, bank: Labelled, among_themselves: bool = False) -> None:
        ks, temperatures = zip(*STANDARD.values(), strict=True)
        self.ks = sorted({*options.ks, *ks})
        self.temperatures = sorted({*options.temperatures, *temperatures})
        if among_themselves:
            most = max(1, len(bank) // FOR_EACH)
            self.ks = [k for k in self.ks if k <= most] or [most]
        self.standard = {name: cell for name, cell in STANDARD.items() if cell in self.cells}
        self.standard = self.standard or {"largest": (self.ks[-1], STANDARD["training"][1])}
        self.classes = list(asked.images.classes)
        self.rows, self.labels = bank.on(asked.model.device)

    @property
    def cells(self) -> list[tuple[int, float]]:
        """k and temperature, in the order of what is named, (K * T)."""
        return list(product(self.ks, self.temperatures))

    def named(self, queries: Labelled) -> torch.Tensor:
        """The class (K * T, M) of each query by each cell."""
        return self.sweep(queries.rows, None)

    def among_themselves(self, sample: np.ndarray) -> torch.Tensor:
        """The class (K * T, M) of some rows of the bank by all the others."""
        itself = torch.from_numpy(sample)
        return self.sweep(rows_at(self.rows, itself), itself)

    def sweep(self, queries: torch.Tensor, itself: torch.Tensor | None) -> torch.Tensor:
        """The class (K * T, M) of each query, on the CPU."""
        named = knn_sweep(
            self.rows,
            self.labels,
            queries,
            ks=self.ks,
            temperatures=self.temperatures,
            num_classes=len(self.classes),
            itself=itself,
        )
        return named.flatten(0, 1).cpu()


def name_of(k: int, temperature: float) -> str:
    """The name of a cell's number."""
    return f"k={k}, T={temperature:g}"


def results(grid: Grid, named: torch.Tensor, labels: torch.Tensor) -> tuple[dict[str, Number], dict[str, Any]]:
    """The number of every cell, and the classes one by one by the paper's, or the first standard one that there is."""
    right = named == labels
    numbers: dict[str, Number] = {
        name_of(k, temperature): proportion(int(row.sum()), len(labels))
        | {"k": k, "temperature": temperature}
        | ({"voters": len(grid.labels)} if k > len(grid.labels) else {})
        for (k, temperature), row in zip(grid.cells, right, strict=True)
    }
    first = next(iter(grid.standard.values()))
    by_class = one_by_one(right[grid.cells.index(first)], labels, grid.classes)
    more = {
        "chance": chance(labels),
        "standard": {name: name_of(*cell) for name, cell in grid.standard.items()},
        "per_class": {"of": name_of(*first), "classes": by_class},
    }
    return numbers, more


def chosen_by_bank(grid: Grid, numbers: dict[str, Number], options: Options) -> dict[str, Any]:
    """The cell that is best on the bank's own images, each held against the others: the queries have no say in it."""
    count = min(options.choose_by, len(grid.labels))
    if not count:
        return {}
    sample = np.sort(permutation(options.seed, 0, len(grid.labels))[:count])
    right = grid.among_themselves(sample) == grid.labels.cpu()[torch.from_numpy(sample)]
    best = int(right.sum(dim=1).argmax())
    name = name_of(*grid.cells[best])
    by = {"by": "leave-one-out on the bank", "images": count, "there": proportion(int(right[best].sum()), count)}
    return {"name": name, **by}


def summary(left: dict[str, Any]) -> str:
    """The main numbers in words."""
    numbers, chosen = left["numbers"], left["chosen"]
    lines = [f"k-NN of {left['model']}, {left['queries']['images']} images ({left['kind']}):"]
    lines += [f"  chance (the most frequent class)  {left['chance']:.1%}"]
    for standard, name in left["standard"].items():
        voters = f", all {numbers[name]['voters']} vote" if "voters" in numbers[name] else ""
        lines += [f"  {WORDS[standard] + ', ' + name + voters:<32}  {as_share(numbers[name])}"]
    if chosen:
        label = f"chosen on the bank, {chosen['name']}"
        lines += [f"  {label:<32}  {as_share(numbers['chosen'])}"]
    return "\n".join(lines)
