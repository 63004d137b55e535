"""Compare recipes: train them over seeds, evaluate them, and make a table.

Examples:
    ssl-backbones compare resnet18_byol.imagenette96_100ep resnet18_moco_v2.imagenette96_100ep --data photos --seeds 0 1
    ssl-backbones compare sample --data photos --models resnet8_byol.imagenette32_60ep --protocols knn logistic mlp
    ssl-backbones compare sample --data photos --with_random --epochs 20 --workers 0

Beside the options below, every field of the recipes is one, as `ssl-backbones pretrain RECIPE --help` lists them; it
is given to all of them. Recipes that are trained on mined pairs have them mined first. What is finished is not done
again, so the same command goes on with a comparison that was stopped; what is run by other options or on other data
lies in another folder. Leaves table.md, table.json and table.png beside the runs.
"""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path

from ssl_backbones.catalogue.lookup import describe
from ssl_backbones.checks import brief, check
from ssl_backbones.credentials import without_credentials
from ssl_backbones.evaluate import protocols
from ssl_backbones.evaluate.comparison.comparison import PROGRAM, Column, Comparison, ComparisonError, Row
from ssl_backbones.evaluate.comparison.jobs import PYTHON, compare
from ssl_backbones.recipes.facts import arch_of
from ssl_backbones.typed.words import Hidden, Positional, grouped, options_among, read

COLUMNS = {
    "knn": Column("k-NN", "knn", "k=20, T=0.07", "20 neighbours, temperature 0.07."),
    "logistic": Column(
        "linear",
        "logistic",
        "top-1",
        "logistic regression on frozen features, its weight decay chosen on a held-out part of the training images.",
    ),
    "mlp": Column("two layers", "mlp", "top-1", "a classifier of two layers on frozen features."),
    "linear": Column(
        "linear by SGD",
        "linear",
        "top-1",
        "one layer on the frozen network, by MoCo v2's schedule, the rate chosen on a tenth of the training images.",
        ("--learning_rates", "0.3", "3", "30"),
    ),
    "finetune": Column("fine-tuned", "finetune", "top-1", "the whole network, 20 epochs."),
    "semi": Column("1 % of labels", "semi", "top-1", "the whole network, on the labels of 1 % of the images."),
    "diagnose": Column("rank", "diagnose", "rank", "effective rank of the features.", percent=False),
}
"""The column of each protocol of `evaluate`."""


@dataclass(frozen=True)
class Options:
    """The rows and columns of the table."""

    recipes: Positional[tuple[str, ...]] = ()
    """Recipes, each run for every seed: a row each."""
    data: str = ""
    """Images to train on: a folder, parquet files, tar shards, or a Hub dataset id."""
    validation: str = ""
    """Labelled images to test on. Default: the data's own validation split, or a part of the data."""
    out: Path = Path("runs/compare")
    """The folder for runs, evaluations and the table."""
    models: tuple[str, ...] = ()
    """Models to evaluate as they are: registered names, timm names, hf-hub:org/name, or folders of runs."""
    with_random: bool = False
    """Also evaluate the recipes' networks with random weights, as baselines."""
    seeds: tuple[int, ...] = (0,)
    """The seeds of each row."""
    protocols: tuple[str, ...] = ("knn", "logistic")
    """Protocols of `evaluate`: knn, logistic, mlp, linear, finetune, semi, diagnose."""
    pairs_from: str = ""
    """Recipe or model that FLAGS' pairs are mined with. Default: the first recipe that needs no pairs."""
    title: str = ""
    """Title of the table."""
    launch: str = ""
    """Command that starts each run, such as 'accelerate launch --num_processes 8'. Default: python."""
    words: Hidden[tuple[str, ...]] = ()
    """Options given to every recipe."""

    def __post_init__(self) -> None:
        for protocol in self.protocols:
            check(protocol in COLUMNS, "protocols", protocol, f"one of {', '.join(COLUMNS)}")


def parse(words: Sequence[str], program: str) -> Options:
    """The options that the words name; those that are none of its own are the recipes'."""
    known = {field.name for field in fields(Options)} | {"help", "no_with_random"}
    own: list[str] = []
    others: list[str] = []
    for name, following in grouped(words):
        chosen = own if not name or name in known else others
        chosen += [f"--{name}", *following] if name else following
    return replace(read(Options, own, program, __doc__, needed=("data",)), words=tuple(others))


def run(options: Options) -> int:
    """Do what is not done yet, and print the table; 1 where some of it failed."""
    try:
        launch = tuple(shlex.split(options.launch))
    except ValueError as error:
        raise ComparisonError(f"--launch is {brief(repr(options.launch))}, which is no command ({error})") from error
    return carry_out(comparison_of(options), launch)


def carry_out(comparison: Comparison, launch: tuple[str, ...] = ()) -> int:
    """Do what is not done yet of a comparison, and print the table; 1 where some of it failed."""
    failed = compare(comparison, launch or PYTHON)
    print((comparison.out / "table.md").read_text(encoding="utf-8"))
    if failed:
        print(f"{PROGRAM}: {len(failed)} failed; the same command tries them again", file=sys.stderr)
    return 1 if failed else 0


def takes_rgb_alone(protocol: str) -> bool:
    """True for a protocol that knows no images of other channels."""
    options = import_module(f"{protocols.__name__}.{protocol}").Options
    return "in_chans" not in {field.name for field in fields(options)}


def check_models_alone(options: Options) -> None:
    """Refuse what is for recipes where there are none."""
    known = {"classes", "hold_out", "in_chans", "max_pixels", "workers"}
    others = [f"--{name}" for name, _ in grouped(options.words) if name and name not in known]
    others += ["--with_random"] * options.with_random
    if others:
        raise ComparisonError(f"{others[0]} is for recipes, and none is named: name some first, or leave it out")


def comparison_of(options: Options) -> Comparison:
    """The rows and columns that the options name: random weights first, then recipes, then models."""
    if not options.recipes:
        check_models_alone(options)
    for name in options.models:
        if "/" not in name:
            describe(name)  # refuses, before the work, one that is unknown
    if options_among(options.words, {"in_chans"}) and (rgb := [*filter(takes_rgb_alone, options.protocols)]):
        raise ComparisonError(f"{rgb[0]} takes RGB alone: leave it out of --protocols, or leave out --in_chans")
    rows = [Row(name, recipe=name) for name in options.recipes]
    comparison = Comparison(
        options.title or f"Compared on {without_credentials(options.data)}",
        options.data,
        options.out,
        (*rows, *(Row(name, model=name) for name in options.models)),
        tuple(COLUMNS[name] for name in options.protocols),
        options.validation,
        options.seeds,
        options.words,
        options.pairs_from,
    )
    if not options.with_random:
        return comparison
    made: dict[tuple[str, int], str] = {}
    for each in map(comparison.recipe, rows):  # drawn as the first recipe of the network draws it
        made.setdefault((arch_of(each), each.size), each.model)
    sizes = Counter(arch for arch, _ in made)
    random = [
        Row(f"{arch}{f' at {size} px' if sizes[arch] > 1 else ''}, random weights", model=model, random=True, size=size)
        for (arch, size), model in sorted(made.items())
    ]
    return replace(comparison, rows=(*random, *comparison.rows))
