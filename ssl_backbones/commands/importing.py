"""`ssl-backbones import NAME FILE`: a file that was downloaded by hand becomes the weights of a name."""

from __future__ import annotations

import argparse
from typing import Any

from ssl_backbones.fetch import folder_of, import_file


def add(commands: Any) -> None:
    """Add the command to a parser's."""
    command = commands.add_parser("import", help="keep a file downloaded by hand as the weights of a name")
    command.add_argument("name", help="as `list` shows it, with its tag")
    command.add_argument("file", help="the publisher's own checkpoint")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Convert the file, keep it, and say what was found in it."""
    converted = import_file(options.name, options.file)
    print(
        f"{options.name} has its weights: {len(converted.weights)} tensors of a {converted.architecture} in the layout "
        f"of {converted.layout}, {len(converted.heads)} of heads left out, kept in {folder_of(options.name)}"
    )
    if converted.notes:
        print(f"note: {converted.notes}")
    return 0
