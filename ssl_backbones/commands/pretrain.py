"""Pretrain a backbone without labels: accelerate launch training/pretrain.py [RECIPE] [--data ...] [--FIELD VALUE ...]

Without arguments, the sample recipe runs on the photos that ship with the repository. The same command goes on with a
run that was stopped. `--list` shows the recipes, `--help` the fields of one.
"""

from __future__ import annotations

import logging

from ssl_backbones.recipes.command_line import parse
from ssl_backbones.refusal import Refusal
from ssl_backbones.train.pretrain import pretrain
from ssl_backbones.train.processes import refuse


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
