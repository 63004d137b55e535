"""Every method at about equal CPU cost: ResNet-8 on Imagenette at 32 px, three seeds for the ten that matter.

    python benchmarks/all_methods.py --data imagenette_96 --budget 360 --tuned runs/tuning/tuned.json

Each row is trained for the same CPU seconds, those of its steps with their views, and of its teacher before the first;
the epochs that this allows follow from steps of rows that take turns. A method is a row by having a recipe of a
ResNet-8 on Imagenette; where there are several, each is one. Those that learn from a teacher want one (--lite0 FOLDER),
FLAGS mines its pairs by the first run of MoCo v2. A run that is stopped goes on; what has a record is not done again.
The table, with differences paired image by image and seed by seed, is written anew after every run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from equal_cost import done, drawn, trained
from equal_cost_rows import RANDOM, Bench, Row, costs, epochs_for
from equal_cost_table import NUMBERS, Record, cells, gain, points, read
from timing import on_threads, write

from ssl_backbones import recipes
from ssl_backbones.commands import mine_pairs
from ssl_backbones.methods import METHODS
from ssl_backbones.recipes.recipe import Recipe

DATA = "imagenette"
PAIRS_BY = "moco_v2"
"""The method whose first run pairs are mined by; its row is the first."""
TEN = (PAIRS_BY, "byol", "lewel_m", "lewel_b", "simclr", "swav", "dino", "nnclr", "densecl", "vicreg")
"""The methods that have every seed; all others have the first."""
PAIRED = (
    ("lewel_m", "moco_v2"),
    ("lewel_b", "byol"),
    ("densecl", "moco_v2"),
    ("nnclr", "simclr"),
    ("swav", "simclr"),
    ("dino", "byol"),
    ("dino", "swav"),
    ("byol", "moco_v2"),
    ("vicreg", "simclr"),
    ("supcon", "simclr"),
    ("flags", "moco_v2"),
    ("rotnet", "patch_rotnet"),
    ("rotnet", "patch_relnet"),
)
"""Methods among those, and what each is held against: the papers' own comparisons."""
PREFERRED = ("Imagenette at equal cost (no paper)", "Weights that ship (no paper)", "Small images (no paper)")
"""Sources of recipes; a method takes all those of the first that it has any of."""
AT_ONCE = 6
"""Rows whose steps take turns."""


def recipes_of(method: str) -> list[Recipe]:
    """The recipes that are a method's rows; none for one that has none of a ResNet-8 on Imagenette."""
    small = [each for each in recipes.RECIPES.values() if each.model == f"resnet8_{method}"]
    known = [each for each in small if each.promise.data == "Imagenette"]
    for source in PREFERRED:
        if found := [each for each in known if each.promise.paper == source]:
            return found
    return known


def rows(teacher: bool) -> list[Row]:
    """All rows, the one that pairs are mined by first; those with a teacher only where there is one."""
    order = [PAIRS_BY, *(name for name in TEN if name != PAIRS_BY), *(name for name in METHODS if name not in TEN)]
    found = []
    for method in order:
        for recipe in recipes_of(method):
            taught = bool(recipe.method.given)
            if taught and not (teacher and recipe.name.endswith("lite0")):
                continue
            found.append(Row(recipe.name.removeprefix("resnet8_"), recipe.name, "lite0" if taught else ""))
    return found


def method_of(row: Row) -> str:
    """The method of a row."""
    return str(recipes.get(row.recipe).method.name)


def order(found: list[Row], seeds: list[int]) -> Iterator[tuple[Row, int]]:
    """The runs: every row with the first seed, then the ten with the others."""
    yield from ((row, seeds[0]) for row in found)
    yield from ((row, seed) for seed in seeds[1:] for row in found if method_of(row) in TEN)


def cost_of(bench: Bench, found: list[Row], row: Row) -> dict[str, float]:
    """CPU seconds of a row's epoch and of its teacher, measured beside a few others where they are not known."""
    first = found.index(row) // AT_ONCE * AT_ONCE
    return costs(bench, tuple(found[first : first + AT_ONCE]), DATA)[row.recipe]


def unknown(bench: Bench, found: list[Row]) -> list[Row]:
    """The rows whose cost was not measured yet."""
    file = bench.out / f"costs.{DATA}.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    return [row for row in found if row.recipe not in known]


def wants_pairs(row: Row) -> bool:
    """True for a row that learns from mined pairs."""
    return hasattr(recipes.get(row.recipe).method, "pairs")


def mined(bench: Bench, row: Row, seed: int) -> None:
    """Mine the pairs by a run, once."""
    if not bench.pairs.exists():
        model = str(bench.run(row, DATA, seed))
        mine_pairs.run(mine_pairs.Options(model=model, data=bench.sets[DATA], out=bench.pairs))


def work(bench: Bench, found: list[Row], seeds: list[int], results: Path) -> int:
    """Do all that has no record yet; the number of runs that failed."""
    failed = 0
    for seed in seeds:
        failed += not done(bench, RANDOM, DATA, seed, drawn, bench, DATA, seed)
    apart = [found[:1], found[1:]]  # the others' cost may want the pairs
    for row, seed in order(found, seeds):
        if bench.record(row.label, DATA, seed).exists():
            continue
        beside = apart[row is not found[0]]
        if row is not found[0] and any(wants_pairs(each) for each in (row, *unknown(bench, beside))):
            mined(bench, found[0], seeds[0])
        cost = cost_of(bench, beside, row)
        epochs = epochs_for(bench.budget, cost)
        failed += not done(bench, row.label, DATA, seed, trained, bench, row, DATA, seed, epochs, cost["before"])
        save(bench, found, results)
    save(bench, found, results)
    return failed


def table(records: dict[tuple[str, str], list[Record]], found: list[Row]) -> Record:
    """Every row with its accuracies and cost, over random weights, and the differences of pairs of methods."""
    of = {label: records[label, DATA] for label in (RANDOM, *(row.label for row in found)) if (label, DATA) in records}
    shown = [
        {"row": label, "seeds": [one["seed"] for one in each]}
        | cells(each)
        | {"over_random": {name: gain(each, of[RANDOM], name) for name in NUMBERS if RANDOM in of}}
        for label, each in of.items()
    ]
    first = {method_of(row): row.label for row in reversed(found)}
    named = [(first.get(one, ""), first.get(other, "")) for one, other in PAIRED]
    paired = [
        {"row": one, "over": other} | {name: gain(of[one], of[other], name) for name in NUMBERS}
        for one, other in named
        if one in of and other in of
    ]
    return {"rows": shown, "pairs": paired}


def save(bench: Bench, found: list[Row], results: Path) -> None:
    """Write the table of what there is."""
    records = read(bench.out / "records")
    if not records:
        return
    one = next(iter(records.values()))[0]
    about = {name: one[name] for name in ("budget", "precision", "hardware", "cores", "threads", "python", "versions")}
    dates = sorted({record["date"] for each in records.values() for record in each})
    made = about | {"dates": dates, "choices": dict(bench.choices)} | table(records, found)
    write(made, results)
    results.with_suffix(".md").write_text(markdown(made))


def markdown(made: Record) -> str:
    """The table and the differences as a reader sees them, in % and in points."""
    lines = ["| recipe | seeds | epochs | CPU s | k-NN | linear |", "|---|--:|--:|--:|--:|--:|"]
    for row in made["rows"]:
        cost = f"{fmean(row['cpu_seconds']):.0f}" if "cpu_seconds" in row else ""
        told = " | ".join(f"{100 * row[name]['mean']:.1f}" for name in NUMBERS)
        lines.append(f"| {row['row']} | {len(row['seeds'])} | {row.get('epochs', '')} | {cost} | {told} |")
    lines += ["", "| difference in points | over | seeds | k-NN | linear |", "|---|---|--:|--:|--:|"]
    for one in made["pairs"]:
        if one["knn"] is not None:
            told = " | ".join(points(one[name]) for name in NUMBERS)
            lines.append(f"| {one['row']} | {one['over']} | {len(one['knn']['by_seed'])} | {told} |")
    return "\n".join(lines) + "\n"


def choices_in(file: Path | None) -> dict[str, dict[str, Any]]:
    """The choices that a search found, by recipe; none without a file."""
    if file is None:
        return {}
    return {one["recipe"]: one["choices"] for one in json.loads(file.read_text()).values()}


def main() -> int:
    """Do all that has no record yet; 1 where some of it failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="Imagenette as a folder or parquet files")
    parser.add_argument("--lite0", default="", help="a teacher's folder, for the methods that learn from one")
    parser.add_argument("--tuned", type=Path, help="tuned.json of tuning.py, whose choices the recipes take")
    parser.add_argument("--out", type=Path, default=Path("runs/all_methods"), help="the folder for all that is left")
    results = Path(__file__).parent / "results" / "all_methods.json"
    parser.add_argument("--results", type=Path, default=results, help="the table to write, with one for readers beside")
    parser.add_argument("--budget", type=float, default=360, help="CPU seconds of a run (360)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of all runs (fp32)")
    options = parser.parse_args()
    on_threads(1)
    teachers = {"lite0": options.lite0} if options.lite0 else {}
    choices = choices_in(options.tuned)
    bench = Bench({DATA: options.data}, teachers, options.out, options.budget, choices, options.precision)
    return 1 if work(bench, rows(bool(teachers)), options.seeds, options.results) else 0


if __name__ == "__main__":
    sys.exit(main())
