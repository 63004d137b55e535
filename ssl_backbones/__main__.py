"""The command line: `ssl-backbones list`, `describe`, `import`, `convert`, `export`, `bundle`, `verify`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ssl_backbones.commands import COMMANDS
from ssl_backbones.refusal import Refusal


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it did what was asked for, 1 if nothing was found, 2 if it refused."""
    options = _parser().parse_args(arguments)
    try:
        done: int = options.run(options)
    except (Refusal, OSError) as error:
        print(f"ssl-backbones: {error}", file=sys.stderr)
        return 2
    return done


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("ssl-backbones", description="Self-supervised ResNet backbones for timm.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
