"""Views that grow with the epochs, held to whole views: CPU time and accuracy, paired image by image and seed by seed.

    python benchmarks/progressive.py --data imagenette_96 --epochs 6 --seeds 0 1

Three rows of each method and seed: whole views; growing views for as many epochs, which is cheaper; and growing views
for more epochs, about as many as cost the same by their pixels. A run that is stopped goes on; what has a record is not
done again, and methods that are not named keep what the results file has of them. CPU seconds are those of the steps
with their views, on one thread. What a step costs at each side is measured first, by runs that take turns, unless the
file has it; --costs_alone ends there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from equal_cost import metered
from equal_cost_rows import ROUNDS, STEPS, Steps
from equal_cost_table import gain, points
from timing import circumstances, in_turn, on_threads, quartiles, write

from ssl_backbones import recipes
from ssl_backbones.files import write_json
from ssl_backbones.recipes.progressive import Progressive
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import Monitoring
from ssl_backbones.train.growth import pixels

PACKAGES = ("torch", "timm", "accelerate", "numpy", "pillow", "opencv-python-headless")
WHOLE, GROWING, LONGER = "whole views", "growing views, as many epochs", "growing views, as many pixels"
ROWS = (WHOLE, GROWING, LONGER)
Record = dict[str, Any]


def recipe_of(options: argparse.Namespace, method: str, row: str, seed: int) -> Recipe:
    """The run of a row."""
    usual = recipes.get(f"resnet8_{method}.{options.recipe}")
    folder = options.out / "runs" / f"{method}.{ROWS.index(row)}.seed{seed}"
    whole = replace(
        usual,
        schedule=replace(usual.schedule, warmup_epochs=min(1, options.epochs - 1)),
        monitoring=Monitoring(knn_every=0),
        size=options.size,
        epochs=options.epochs,
        seed=seed,
        data=str(options.data),
        out=str(folder),
        cache=str(options.out / "cache"),
        precision="fp32",
        layout="channels_last",
        engine="opencv",
        workers=0,
    )
    if row == WHOLE:
        return whole
    growing = replace(whole, progressive=Progressive(options.start, options.step, options.whole_from))
    return growing if row == GROWING else replace(growing, epochs=as_costly(growing))


def as_costly(growing: Recipe) -> int:
    """The epochs of growing views that have about the pixels of its epochs of whole ones."""
    epochs = range(growing.epochs, 4 * growing.epochs + 1)
    return min(epochs, key=lambda count: abs(sum(pixels(replace(growing, epochs=count))) - growing.epochs))


def record_of(options: argparse.Namespace, method: str, row: str, seed: int) -> Record:
    """The record of a run, which is made if it is not there."""
    file = options.out / "records" / f"{method}.{ROWS.index(row)}.seed{seed}.json"
    if file.exists():
        found: Record = json.loads(file.read_text())
        return found
    recipe = recipe_of(options, method, row, seed)
    print(f"--- {method}, {row}, seed {seed}: {recipe.epochs} epochs at {sorted(set(recipe.sides))} px", flush=True)
    about = {"method": method, "row": row, "seed": seed, "epochs": recipe.epochs, "sides": list(recipe.sides)}
    made = about | metered(recipe) | circumstances(PACKAGES)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, made)
    return made


def step_costs(options: argparse.Namespace, method: str) -> Record:
    """CPU seconds of a step at each side, measured in turns."""
    whole, growing, _ = (recipe_of(options, method, row, 0) for row in ROWS)
    with tempfile.TemporaryDirectory(prefix="trial-") as place, ExitStack() as folders:
        ways = {
            str(side): Steps(replace(whole, size=side, out=f"{place}/{side}", epochs=1000), folders)
            for side in sorted(set(growing.sides))
        }
        seconds = in_turn(ways, ROUNDS, time.process_time)
    return {side: quartiles(each / STEPS, 4) for side, each in seconds.items()}


def table(records: dict[str, list[Record]]) -> Record:
    """Cost and accuracies of each row of one method, and the gains of growing views over whole ones."""
    rows = [
        {
            "row": row,
            "epochs": of_row[0]["epochs"],
            "sides": of_row[0]["sides"],
            "cpu_seconds": [round(one["cpu_seconds"], 1) for one in of_row],
            **{name: [one[name]["accuracy"] for one in of_row] for name in ("knn", "linear")},
        }
        for row, of_row in records.items()
    ]
    gains = {
        row: {name: gain(records[row], records[WHOLE], name) for name in ("knn", "linear")}
        | {"cpu_time": mean_cost(records[row]) / mean_cost(records[WHOLE])}
        for row in records
        if row != WHOLE
    }
    one = records[WHOLE][0]
    return {"rows": rows, "over_whole_views": gains, "trained_on": one["hardware"], "trained": one["date"]}


def mean_cost(of_row: list[Record]) -> float:
    """The CPU seconds of a row's runs, in the mean."""
    return fmean(one["cpu_seconds"] for one in of_row)


def say(method: str, found: Record) -> None:
    """Print what a method gained."""
    for row, one in found["over_whole_views"].items():
        gained = ", ".join(f"{name} {points(one[name])} points" for name in ("knn", "linear"))
        print(f"{method}, {row}: {one['cpu_time']:.2f} of the CPU time, {gained}")


def main() -> int:
    """Do what has no record yet, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled images, with some to be asked about")
    parser.add_argument("--out", type=Path, default=Path("runs/progressive"), help="the folder for all that is left")
    results = Path(__file__).parent / "results" / "progressive.json"
    parser.add_argument("--results", type=Path, default=results, help="the file to write")
    parser.add_argument("--methods", nargs="+", default=["moco_v2", "byol"])
    parser.add_argument("--recipe", default="imagenette32_60ep", help="the tag of the methods' recipes")
    parser.add_argument("--rows", type=int, default=3, choices=(2, 3), help="with the third, or not")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--start", type=int, default=16)
    parser.add_argument("--step", type=int, default=16, choices=(16, 32))
    parser.add_argument("--whole_from", type=float, default=0.75)
    parser.add_argument("--costs_alone", action="store_true", help="measure what a step costs, and train nothing")
    options = parser.parse_args()
    on_threads(1)
    made: Record = {"data": options.data.name, "size": options.size, "methods": {}}
    if options.results.exists():
        made = json.loads(options.results.read_text())
    for method in options.methods:
        known = made["methods"].get(method, {})
        if "steps" not in known:
            known = {"steps": step_costs(options, method)}
            made |= circumstances(PACKAGES)
        made["methods"][method] = {"steps": known["steps"]}
        write(made, options.results)
        print(f"{method}, CPU s a step: {json.dumps(made['methods'][method]['steps'])}", flush=True)
        if options.costs_alone:
            continue
        runs = {row: [record_of(options, method, row, seed) for seed in options.seeds] for row in ROWS[: options.rows]}
        made["methods"][method] |= table(runs)
        say(method, made["methods"][method])
        write(made, options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
