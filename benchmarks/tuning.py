"""A short search of settings for methods on small images, with the same CPU budget for each; a record for each trial.

    python benchmarks/tuning.py --data imagenette_96 --budget 3600

ResNet-8 at 32 px, by successive halving: nine candidates of a method's grid, today's recipe first among them, for a
third of the budget together; the best three for another third, so three times as long each; the best of those for
the last. Each round trains from random weights with a schedule of its own length, and takes the epochs that a third of
the budget allows, by steps of all methods that take turns. Candidates are told apart by the k-NN accuracy on images
held out of those to train on: the validation images are asked nothing. A search that is stopped goes on; what has a
record is not done again. tuned.json holds the choices that won, as all_methods.py --tuned takes them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from equal_cost_rows import Bench, Meter, Row, costs, spent
from steps import anew
from timing import circumstances, on_threads

from ssl_backbones.files import write_json
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.pretrain import start
from ssl_backbones.train.run import complete

PACKAGES = ("torch", "timm", "accelerate", "numpy", "pillow", "opencv-python-headless")
HELD_OUT = 50
"""Images of a class that candidates are told apart by."""
ROUNDS = (9, 3, 1)
"""Candidates of each round; a round costs what every other does."""
DATA = "images"
Choices = Mapping[str, Any]
GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "simclr": {
        "optimizer.lr": (0.03, 0.06, 0.12, 0.24, 0.48),
        "method.temperature": (0.1, 0.2, 0.5),
        "optimizer.weight_decay": (1e-4, 5e-4),
        "optimizer.momentum": (0.9, 0.95),
    },
    "simsiam": {
        "optimizer.lr": (0.03, 0.06, 0.12, 0.24, 0.48),
        "method.predictor_dim": (32, 128, 256),
        "optimizer.weight_decay": (1e-4, 5e-4),
        "optimizer.momentum": (0.9, 0.95),
    },
    "barlow_twins": {
        "optimizer.lr": (5e-4, 1e-3, 2e-3, 4e-3),
        "method.off_diagonal": (0.001, 0.005, 0.02),
        "optimizer.weight_decay": (1e-6, 1e-4),
        "optimizer.betas": ((0.9, 0.999), (0.95, 0.999)),
    },
    "vicreg": {
        "optimizer.lr": (5e-4, 1e-3, 2e-3, 4e-3),
        "method.invariance": (10.0, 25.0),
        "method.covariance": (0.25, 1.0, 4.0),
        "optimizer.weight_decay": (1e-6, 1e-4),
    },
}
"""By method, the values of each field that is searched."""


def recipe_of(method: str) -> str:
    """The recipe that is tuned."""
    return f"resnet8_{method}.imagenette96_100ep"


def candidates(method: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Choices of the grid, no two alike: none, for today's recipe, and others drawn by the seed and the method."""
    grid = GRIDS[method]
    every = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    drawn = np.random.default_rng([seed, *method.encode()]).permutation(len(every))
    return [{}, *(every[at] for at in drawn[: count - 1])]


def epochs_of(budget: float, epoch: float, count: int) -> int:
    """The epochs of each of so many candidates in a round; ValueError where the budget does not allow one."""
    epochs = int(budget / len(ROUNDS) / count / epoch)
    if epochs < 1:
        raise ValueError(
            f"--budget is {budget:g}, and {count} candidates for an epoch of {epoch:.1f} s each, in a round of "
            f"{len(ROUNDS)}, take {len(ROUNDS) * count * epoch:.0f} CPU seconds: allow as many"
        )
    return epochs


def trial(bench: Bench, method: str, number: int, choices: Choices, place: tuple[int, int], seed: int) -> Recipe:
    """The run of a candidate, at a place: the number of its round, and the epochs."""
    turn, epochs = place
    row = Row(f"{method} {number} round {turn}", recipe_of(method))
    made = replace(bench, choices={row.recipe: choices}).recipe(row, DATA, seed, epochs)
    return replace(made, hold_out=HELD_OUT)


def scored(recipe: Recipe) -> dict[str, Any]:
    """Train a recipe to its end, from where it was left: its score on the images held out, and its CPU seconds."""
    anew()
    begun, save, _ = start(recipe)
    file = recipe.folder.with_name(f"{recipe.folder.name}.cpu.json")
    if not isinstance(begun, RunFolder):
        Meter(begun[0], file)
    complete(begun, save)
    found = json.loads((recipe.folder / "results.json").read_text())["numbers"]
    score, before = (found[name]["value"] for name in ("knn", "knn before"))
    return {"score": score, "before": before, "cpu_seconds": round(max(spent(file).values()), 1)}


def record_of(bench: Bench, method: str, number: int, choices: Choices, place: tuple[int, int], seed: int) -> Any:
    """The record of a candidate in a round, which is made if it is not there; ValueError for one of another search."""
    file = bench.out / "records" / f"{method}.round{place[0]}.candidate{number}.json"
    if not file.exists():
        print(f"--- {method}, round {place[0] + 1}, candidate {number}, {place[1]} epochs: {dict(choices)}", flush=True)
        about = {"method": method, "round": place[0], "candidate": number, "choices": choices, "epochs": place[1]}
        found = scored(trial(bench, method, number, choices, place, seed))
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            file,
            about
            | found
            | {"seed": seed, "budget": bench.budget, "precision": bench.precision}
            | circumstances(PACKAGES),
        )
        print(f"    k-NN {found['score']:.3f} in {found['cpu_seconds']:.0f} CPU s", flush=True)
    made = json.loads(file.read_text())
    if (made["choices"], made["epochs"], made["seed"]) != (json.loads(json.dumps(choices)), place[1], seed):
        raise ValueError(f"{file} is of another budget or seed than this search's: choose another folder with --out")
    return made


def search(bench: Bench, method: str, epoch: float, seed: int) -> dict[str, Any]:
    """The rounds of a method, and the choices that won; an epoch costs so many CPU seconds."""
    left = list(enumerate(candidates(method, ROUNDS[0], seed)))
    rounds, costs_so_far = [], 0.0
    for turn, count in enumerate(ROUNDS):
        epochs = epochs_of(bench.budget, epoch, count)
        records = [record_of(bench, method, number, choices, (turn, epochs), seed) for number, choices in left[:count]]
        rounds.append([{name: one[name] for name in ("candidate", "choices", "epochs", "score")} for one in records])
        costs_so_far += sum(one["cpu_seconds"] for one in records)
        ranked = sorted(records, key=lambda one: (-one["score"], one["candidate"]))
        left = [(one["candidate"], one["choices"]) for one in ranked]
    return {"recipe": recipe_of(method), "choices": left[0][1], "rounds": rounds, "cpu_seconds": round(costs_so_far, 1)}


def main() -> int:
    """Search what has no record yet, and write the choices that won."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="labelled images, as a folder or parquet files")
    parser.add_argument("--out", type=Path, default=Path("runs/tuning"), help="the folder for all that is left")
    parser.add_argument("--budget", type=float, default=3600, help="CPU seconds of each method (3600)")
    parser.add_argument("--methods", nargs="+", choices=list(GRIDS), default=list(GRIDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of all runs (fp32)")
    options = parser.parse_args()
    on_threads(1)
    bench = Bench({DATA: options.data}, {}, options.out, options.budget, precision=options.precision)
    known = costs(bench, tuple(Row(method, recipe_of(method)) for method in options.methods), DATA)
    for method in options.methods:
        file = options.out / "tuned.json"
        tuned = json.loads(file.read_text()) if file.exists() else {}
        found = search(bench, method, known[recipe_of(method)]["epoch"], options.seed)
        write_json(file, tuned | {method: found})
        print(f"{method}: {found['choices'] or 'the recipe as it is'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
