"""`ssl-backbones describe MODEL`: all that is known of one model."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ssl_backbones.catalogue.lookup import describe
from ssl_backbones.registry.errors import UnknownModelError


def add(commands: Any) -> None:
    """Add the command to a parser's."""
    command = commands.add_parser("describe", help="method, data, paper, licence and figures of one model")
    command.add_argument("name", metavar="MODEL", help="as `list` shows it, hf-hub:org/name, or a folder of weights")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the description; 1 if there is no such model."""
    try:
        print(describe(options.name))
    except UnknownModelError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
