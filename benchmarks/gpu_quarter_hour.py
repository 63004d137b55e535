"""Train ResNet-18 at 128 px by five methods in minutes of one GPU, for equally many epochs.

    python benchmarks/gpu_quarter_hour.py --out "$OUT/quarter_hour" --teacher resnet20_distilled.goods64_20ep_lite0

BYOL, LEWEL_B, MoCo v2, LEWEL_M and, where a teacher is named, Distilled: the recipes for one's own images
(docs/own_rules.md), each a real run with its images resident on the device, k-NN curve, results, page, card and
weights. Two epochs of each are made first; from what they took follows the number of epochs that all can have within
--minutes, unless --epochs says it. FOLDER/quarter_hour.json is written anew after every run, and a run that was begun
already goes on when the same command is given with the --epochs that stand there.

The images are the sample photos of this repository, or those of --data, such as imagenette_96, which have to be brought
along. The teacher is a network that ships, or a folder of timm's or of a run. It needs this repository, not installed,
no network, and these packages at hand: torch 2.6 or newer, timm, huggingface_hub, safetensors, numpy, Pillow, Jinja2,
accelerate, pyarrow, tqdm. On a machine without a network bring wheels of those that it lacks. --small makes everything
tiny, on images of noise, for a dry run on a CPU.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import needs

sys.path.insert(0, str(needs.ROOT))

import torch
from gpu_runs import write_images
from limited import Record, Row, free
from steps import anew
from timing import SAMPLE, circumstances

from ssl_backbones import recipes
from ssl_backbones.recipes.own import put
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.runs.log import read_log
from ssl_backbones.runs.results import read_results
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.pretrain import pretrain
from ssl_backbones.train.processes import meet

PACKAGES = ("torch", "timm", "accelerate", "numpy", "pillow")
METHODS = ("byol", "lewel_b", "moco_v2", "lewel_m", "distilled")
TRIAL = 2
"""Epochs of the run from which a method's costs are taken."""
POINTS = 10
"""Measurements of k-NN within a run, about."""
RESERVE = 20.0
"""Seconds that are kept back."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a method's run by its parts."""

    fixed: float
    """Seconds for its beginning and its end."""
    epoch: float
    measurement: float

    def of(self, epochs: int) -> float:
        """Seconds of a run of so many epochs."""
        return self.fixed + epochs * self.epoch + (min(epochs, POINTS) + 2) * self.measurement


def recipe_of(method: str, asked: argparse.Namespace, epochs: int, folder: Path) -> Recipe:
    """The run of a method, its images on the device; what is not said here follows from the rules for own images."""
    named = recipes.get(f"{'resnet8' if asked.small else 'resnet18'}_{method}.own")
    said: dict[str, Any] = {
        "size": 32 if asked.small else 128,
        "batch_size": asked.batch,
        "accumulation": 1,
        "epochs": epochs,
        "monitoring.knn_every": max(1, epochs // POINTS),
    }
    recipe = replace(named, derived=tuple(name for name in named.derived if name not in said))
    for name, value in said.items():
        recipe = put(recipe, name, value)
    if method == "distilled":
        recipe = put(recipe, "method.teacher", asked.teacher)
        recipe = put(recipe, "method.teacher_output", "pooled")
    place: dict[str, Any] = {
        "engine": "device",
        "cache": str(asked.out / "cache"),
        "resident": torch.cuda.is_available(),
    }
    return replace(recipe, data=asked.data, out=str(folder / method), seed=asked.seed, log_every=5, **place)


def trained(recipe: Recipe) -> tuple[RunFolder, float]:
    """The folder of a whole run, and the seconds that it took."""
    anew()
    began = time.monotonic()
    folder = pretrain(recipe)
    anew()
    free()
    return folder, time.monotonic() - began


def cost_of(recipe: Recipe) -> Cost:
    """The parts of what a run of TRIAL epochs took, as its log has them."""
    folder, whole = trained(recipe)
    lines = read_log(folder.path / "speed.jsonl")
    rates = sorted(line["images_per_second"] for line in lines if "images_per_second" in line)
    rate = rates[len(rates) // 2]
    epoch = recipe.batch_size * lines[-1]["step"] / rate / TRIAL
    measurement = max(line.get("measuring", 0.0) for line in lines)
    return Cost(max(0.0, whole - TRIAL * epoch - (TRIAL + 1) * measurement), epoch, measurement)


def epochs_within(seconds: float, costs: Sequence[Cost]) -> int:
    """The most epochs that all of them can have in so much time together; TRIAL at least, and where there is none."""
    most = TRIAL
    if not costs:
        return most
    while sum(cost.of(most + 1) for cost in costs) <= seconds:
        most += 1
    return most


def trial(method: str, asked: argparse.Namespace, costs: dict[str, Cost]) -> Iterator[Row]:
    """The costs of a method, from a short run that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="trial-") as folder:
        costs[method] = cost_of(recipe_of(method, asked, TRIAL, Path(folder)))
    yield {"method": method, **{name: round(value, 2) for name, value in vars(costs[method]).items()}}


def run_of(method: str, asked: argparse.Namespace, epochs: int) -> Iterator[Row]:
    """A method's run: the curve and the numbers that it left, and the folder that holds weights and card."""
    folder, seconds = trained(recipe_of(method, asked, epochs, asked.out))
    results = read_results(folder.results, "run it again")
    curve = [[line["epoch"], round(line["knn"], 4)] for line in read_log(folder.log) if "knn" in line]
    lines = read_log(folder.path / "speed.jsonl")
    yield {
        "method": method,
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "images_per_second": [round(line["images_per_second"]) for line in lines if "images_per_second" in line][-20:],
        "knn_curve": curve,
        "numbers": {name: value for name, value in results["numbers"].items() if "knn" in name or "rank" in name},
        "folder": folder.path.name,
    }


def options() -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(SAMPLE), help="labelled images (the sample photos)")
    parser.add_argument("--teacher", default="", help="network for Distilled, which is left out without one")
    parser.add_argument("--out", type=Path, default=Path("runs/quarter_hour"), help="folder for runs and results")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all of it (9)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=0, help="of every run, instead of what fits")
    parser.add_argument(
        "--epochs_at_most", type=int, default=0, help="of every run, where more would fit (0: no bound)"
    )
    parser.add_argument("--batch", type=int, default=256, help="images a step (256)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="ResNet-8 on noise at 32 px, for a dry run")
    return parser.parse_args()


def measure(asked: argparse.Namespace, record: Record) -> None:
    """Try every method, find the epochs that all can have, and train each that did not fail in its trial."""
    methods = [name for name in asked.methods if name != "distilled" or asked.teacher]
    costs: dict[str, Cost] = {}
    if not asked.epochs:
        for method in methods:
            record.measure(f"trial {method}", partial(trial, method, asked, costs), 0.0)
        methods = [name for name in methods if name in costs]
    if not methods:
        return
    fitting = asked.epochs or epochs_within(record.left() - RESERVE, list(costs.values()))
    epochs = min(fitting, asked.epochs_at_most or fitting)
    record.found["epochs"] = epochs
    for method in methods:
        record.measure(method, partial(run_of, method, asked, epochs), costs[method].of(epochs) * 0.8 if costs else 0.0)


def main() -> int:
    """Train, print and write; 1 if a run failed."""
    asked = options()
    record = Record(asked.out / "quarter_hour.json", asked.minutes, circumstances(PACKAGES, meet()))
    with tempfile.TemporaryDirectory(prefix="noise-") as folder:
        if asked.small:
            asked.data, asked.batch = folder, min(asked.batch, 16)
            for name in ("one", "other"):
                write_images(Path(folder) / name, 24, 40, 40)
        measure(asked, record)
    shutil.rmtree(asked.out / "cache", ignore_errors=True)
    for method in asked.methods:
        for row in record.rows(method):
            print(
                f"{method}: k-NN {row['knn_curve'][0][1]:.1%} -> {row['knn_curve'][-1][1]:.1%}, {row['epochs']} epochs"
            )
    return 1 if record.found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
