"""Starts from what is known, held to training from scratch at equal CPU cost; a record for each run, in a folder.

    python benchmarks/equal_cost.py --imagenette imagenette_96 --goods goods_128 --lite0 FOLDER --dinov2 FOLDER

ResNet-8 at 32 px, three seeds, each row trained for the same CPU seconds: those of its steps with their views, what its
teacher costs before the first step, and in the steps, included; what is measured before and after is not. A teacher
whose features of all images alone take over half of that comes on top, which a row's CPU seconds then tell. The epochs
that this allows follow from steps of all rows that take turns; a record tells the seconds that the run then took.
With --budget18 S, rows of a ResNet-18 are trained for S CPU seconds each, with the first seed, at 64 px on Imagenette
and 96 px on goods; with --epochs18 N, LEWEL_B and BYOL, LEWEL_M and MoCo v2 for N epochs on Imagenette, at 64 px and
output stride 16, where its feature map is 4 x 4. A run that is stopped goes on; what has a record is not done again.
The table is made by equal_cost_table.py.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from equal_cost_rows import (
    DEEP,
    DISTILLED18,
    LARGE,
    RANDOM,
    RANDOM_DEEP,
    RANDOM_LARGE,
    ROWS,
    SIDES,
    TEACHERS,
    THEMSELVES,
    Bench,
    Meter,
    Row,
    costs,
    epochs_for,
    spent,
)
from steps import anew
from timing import circumstances, on_threads
from torch import Tensor

from ssl_backbones.data import Images
from ssl_backbones.evaluate.features import Extraction, features_of
from ssl_backbones.evaluate.labelled import Labelled, labelled, open_labelled
from ssl_backbones.evaluate.model import EvaluatedModel, open_model
from ssl_backbones.evaluate.protocols import logistic
from ssl_backbones.files import write_json
from ssl_backbones.metrics import knn_predict
from ssl_backbones.metrics.logistic_regression import fit_classifier
from ssl_backbones.models.kept_features import keep_features
from ssl_backbones.models.teacher import Teacher
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.pretrain import start
from ssl_backbones.train.run import complete

PACKAGES = ("torch", "timm", "accelerate", "numpy", "pillow", "opencv-python-headless")
NEIGHBOURS = 20
DECADES = tuple(10.0**-power for power in range(7))
"""Weight decays that the linear classifier's is chosen from, on a part of the images to learn from."""


@cache
def opened(data: str) -> tuple[Images, Images, str]:
    """The labelled images of a set, those to be asked about, and their source."""
    images, asked, source = open_labelled(logistic.Options(model="", data=data, out=""), "a benchmark")
    assert asked is not None
    return images, asked, source


def rows_of(model: EvaluatedModel, images: Images, source: str) -> Labelled:
    """A backbone's features of the labelled images."""
    return labelled(lambda wanted: features_of(model, images, Extraction(), wanted=wanted), images, source)


def accuracy(learnt: Labelled, asked: Labelled, classes: int) -> dict[str, Any]:
    """k-NN and linear accuracy on the held-out images, and which of them were named rightly, as hexadecimal digits."""
    options = logistic.Options(model="", data="", out="", weight_decays=DECADES)
    decay, _ = logistic.choose(learnt.rows, learnt.labels, classes, options)
    linear = fit_classifier(learnt.rows, learnt.labels, classes, decay).predict(asked.rows)
    near = knn_predict(learnt.rows, learnt.labels, asked.rows, k=NEIGHBOURS, num_classes=classes)
    right = {"knn": near == asked.labels, "linear": linear == asked.labels}
    return {"of": len(asked)} | {name: {"accuracy": share(one), "right": packed(one)} for name, one in right.items()}


def share(right: Tensor) -> float:
    """The share of correct predictions (M,) bool."""
    return float(right.double().mean())


def packed(right: Tensor) -> str:
    """Correct predictions (M,) bool as hexadecimal digits."""
    return np.packbits(right.numpy()).tobytes().hex()


def trained(bench: Bench, row: Row, data: str, seed: int, epochs: int, before: float) -> dict[str, Any]:
    """Train a row to its end, from where it was left, and test its backbone; the record of the run."""
    found = metered(bench.recipe(row, data, seed, epochs))
    seconds = found.pop("cpu_seconds")
    cost = {"training": round(seconds, 1), "teacher_before": round(before, 1), "whole": round(seconds + before, 1)}
    return {"recipe": row.recipe, "epochs": epochs, "cpu_seconds": cost, **found}


def metered(recipe: Recipe) -> dict[str, Any]:
    """Train a recipe to its end, from where it was left, and test its backbone: steps, CPU seconds and accuracies."""
    anew()
    begun, save, _ = start(recipe)
    file = recipe.folder.with_name(f"{recipe.folder.name}.cpu.json")
    if not isinstance(begun, RunFolder):
        Meter(begun[0], file)
    complete(begun, save)
    steps, seconds = max((int(step), seconds) for step, seconds in spent(file).items())
    images, asked, source = opened(recipe.data)
    model = open_model(recipe.folder, size=recipe.size)
    found = accuracy(rows_of(model, images, recipe.data), rows_of(model, asked, source), len(images.classes))
    return {"steps": steps, "cpu_seconds": seconds, **found}


def drawn(bench: Bench, data: str, seed: int, name: str = "resnet8", size: int = 32) -> dict[str, Any]:
    """The record of random weights, of a network's name or of the network that a run trained."""
    images, asked, source = opened(bench.sets[data])
    model = open_model(name, random=True, seed=seed, size=size)
    return accuracy(rows_of(model, images, bench.sets[data]), rows_of(model, asked, source), len(images.classes))


def itself(bench: Bench, teacher: str, data: str) -> dict[str, Any]:
    """The record of a teacher's own features, as the kept ones are made."""
    images, asked, _ = opened(bench.sets[data])
    choices = TEACHERS[teacher]
    network = Teacher(
        bench.teachers[teacher], choices.get("teacher_layer", ""), choices.get("teacher_output", "pooled")
    )
    found = []
    for part, name in ((images, ""), (asked, ".asked")):
        folder = bench.out / "kept" / f"{data}-{teacher}{name}"
        kept = keep_features(network, choices["teacher_size"], part, folder)[np.arange(len(part))]
        known = np.flatnonzero(np.asarray(part.labels) >= 0)
        labels = torch.from_numpy(np.asarray(part.labels)[known]).long()
        found.append(Labelled(torch.from_numpy(kept[known]).float(), labels, len(part) - len(known), ()))
    return accuracy(found[0], found[1], len(images.classes)) | {"side": choices["teacher_size"]}


def work(bench: Bench, seeds: list[int], budget18: float, epochs18: int) -> int:
    """Do all that has no record yet, seed by seed; the number of runs that failed."""
    failed = 0
    for seed in seeds:
        failed += sum(not at_cost(bench, row, data, seed, ROWS) for row in ROWS for data in row.sets)
        for data in bench.sets:
            failed += not done(bench, RANDOM, data, seed, drawn, bench, data, seed)
            for teacher, label in THEMSELVES.items() if seed == seeds[0] else ():
                failed += not done(bench, label, data, seed, itself, bench, teacher, data)
    if budget18:
        deep = replace(bench, budget=budget18)
        for data in sorted(SIDES):
            failed += sum(not at_cost(deep, row, data, seeds[0], DEEP) for row in DEEP)
            failed += not untrained(deep, RANDOM_DEEP, DISTILLED18, data, seeds[0])
    if epochs18:
        failed += sum(not for_epochs(bench, row, data, seeds[0], epochs18) for row in LARGE for data in row.sets)
    return failed


def for_epochs(bench: Bench, row: Row, data: str, seed: int, epochs: int) -> bool:
    """Train a row for so many epochs and draw its network beside it, unless they have their records; False if not."""
    free = replace(bench, budget=0)
    made = done(free, row.label, data, seed, trained, bench, row, data, seed, epochs, 0.0)
    return made and untrained(free, RANDOM_LARGE, row, data, seed)


def untrained(bench: Bench, label: str, row: Row, data: str, seed: int) -> bool:
    """Draw the network of a row's run and test it, unless it has its record; False if that failed."""
    folder, size = str(bench.run(row, data, seed)), row.size or SIDES[data]
    return done(bench, label, data, seed, drawn, bench, data, seed, folder, size)


def at_cost(bench: Bench, row: Row, data: str, seed: int, beside: tuple[Row, ...]) -> bool:
    """Train a row for what it may cost, reckoned beside others, unless it has its record; False if that failed."""
    if bench.record(row.label, data, seed).exists():
        return True
    cost = costs(bench, beside, data)[row.recipe]
    epochs = epochs_for(bench.budget, cost)
    return done(bench, row.label, data, seed, trained, bench, row, data, seed, epochs, cost["before"])


def done(bench: Bench, label: str, data: str, seed: int, find: Any, *given: Any) -> bool:
    """Write a record unless it is there; False if that failed, which is told and leaves the others to be done."""
    file = bench.record(label, data, seed)
    if file.exists():
        return True
    print(f"--- {label}, {data}, seed {seed}", flush=True)
    try:
        found = find(*given)
    except Exception:  # one run that fails costs no other
        traceback.print_exc()
        return False
    about = {"row": label, "data": data, "seed": seed, "budget": bench.budget, "precision": bench.precision}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, about | found | circumstances(PACKAGES))
    print(f"    knn {found['knn']['accuracy']:.3f}, linear {found['linear']['accuracy']:.3f}", flush=True)
    return True


def main() -> int:
    """Do all that has no record yet; 1 where some of it failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("imagenette", "goods", "lite0", "dinov2"):
        parser.add_argument(f"--{name}", required=True, help="a folder: of images, or of a teacher as timm loads it")
    parser.add_argument("--out", type=Path, default=Path("runs/equal_cost"), help="the folder for all that is left")
    parser.add_argument("--budget", type=float, default=600, help="CPU seconds of a run (600)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget18", type=float, default=0, help="CPU seconds of a ResNet-18's run; 0 for none")
    parser.add_argument("--epochs18", type=int, default=0, help="of a ResNet-18 whose maps are 4 x 4; 0 for none")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of all runs (fp32)")
    options = parser.parse_args()
    on_threads(1)
    sets = {"imagenette": options.imagenette, "goods": options.goods}
    teachers = {"lite0": options.lite0, "dinov2": options.dinov2}
    bench = Bench(sets, teachers, options.out, options.budget, precision=options.precision)
    return 1 if work(bench, options.seeds, options.budget18, options.epochs18) else 0


if __name__ == "__main__":
    sys.exit(main())
