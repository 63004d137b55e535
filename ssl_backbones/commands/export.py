"""`ssl-backbones export MODEL --format FORMAT --out FILE`: a backbone for another library."""

from __future__ import annotations

import argparse
from typing import Any

from ssl_backbones.hub.formats import FORMATS, export


def add(commands: Any) -> None:
    """Add the command to a parser's."""
    command = commands.add_parser("export", help="write a backbone in the format of another library")
    command.add_argument("model", metavar="MODEL", help="a registered name, hf-hub:org/name, or a folder of weights")
    command.add_argument("--format", required=True, choices=list(FORMATS), help="whose")
    command.add_argument("--out", required=True, metavar="FILE", help="the file to write; FILE.json comes beside it")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the file and say how images are to be prepared, and where that stands."""
    path = export(options.model, options.format, options.out)
    print(f"{path}: written for {options.format}; how to load it and prepare images stands in {path}.json")
    return 0
