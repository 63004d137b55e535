"""Pretrain a backbone without labels: accelerate launch training/pretrain.py [RECIPE] [--data ...] [--FIELD VALUE ...]

Without arguments, the sample recipe runs on the photos that ship with the repository. The same command goes on with a
run that was stopped. `--list` shows the recipes, `--help` the fields of one.
"""

from __future__ import annotations

import logging
from typing import Any

from ssl_backbones.recipes.command_line import parse
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.refusal import Refusal
from ssl_backbones.runs.results import as_points, as_share, percent
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.conduct import conduct
from ssl_backbones.train.finish import leave
from ssl_backbones.train.loop import Loop
from ssl_backbones.train.monitor import Measured
from ssl_backbones.train.processes import refuse
from ssl_backbones.train.start import start


def pretrain(recipe: Recipe) -> RunFolder:
    """Run a recipe to its end, from where it was left; the folder with what it leaves."""
    return conduct(start(recipe), left)


def left(loop: Loop, before: Measured | None, after: Measured) -> str:
    """What the run leaves, written into its folder, and in words."""
    assert before is not None
    return summary(leave(loop, before, after), loop.folder)


def summary(results: dict[str, Any], folder: RunFolder) -> str:
    """What came out, for a person."""
    lines, numbers = [], results["numbers"]
    if "knn" in numbers:
        before, after, gain = (numbers[name] for name in ("knn before", "knn", "knn gain"))
        lines += [
            f"k-NN accuracy ({after['of']} queries, {results['kind']}, k={after['k']}):",
            f"  chance (the most frequent class)  {percent(results['chance'])} %",
            f"  the backbone before training      {as_share(before)}",
            f"  the backbone after training       {as_share(after)}",
            f"  gain, over the same images        {as_points(gain)}",
        ]
    rank_before, rank = (numbers[name]["value"] for name in ("rank before", "rank"))
    left = sorted(path.name for path in folder.path.iterdir() if not path.name.startswith("."))
    lines += [
        f"Effective rank of the features: {rank_before:.1f} before, {rank:.1f} after",
        f"Left in {folder.path}: {', '.join(left)}",
        f'Load it: ssl_backbones.create_model("{folder.path}", pretrained=True)',
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the command line; what is refused ends in one sentence and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    recipe = parse()
    try:
        pretrain(recipe)
    except Refusal as error:
        refuse("pretrain.py", error)


if __name__ == "__main__":
    main()
