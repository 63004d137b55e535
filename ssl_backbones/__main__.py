"""The command line: `ssl-backbones list`, `ssl-backbones describe NAME`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ssl_backbones.registry import Description, UnknownModelError, describe, list_models


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it found what was asked for, 1 if not."""
    options = _parser().parse_args(arguments)
    found: int = options.run(options)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("ssl-backbones", description="Self-supervised ResNet backbones for timm.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="the models there are, and what is known of them")
    command.add_argument("pattern", nargs="?", default="", help="a wildcard, as in 'resnet50_*' (quote it)")
    command.add_argument("--pretrained", action="store_true", help="only those whose weights are published")
    command.set_defaults(run=_list)

    command = commands.add_parser("describe", help="method, data, paper, licence and figures of one model")
    command.add_argument("name", help="as `list` shows it")
    command.set_defaults(run=_describe)
    return parser


def _list(options: argparse.Namespace) -> int:
    names = list_models(options.pattern, options.pretrained, include_tags=True)
    if not names:
        which = "model with published weights" if options.pretrained else "model"
        print(f"no {which} matches {options.pattern or '*'!r}", file=sys.stderr)
        return 1
    rows: list[tuple[str, ...]] = [("name", "method", "data", "epochs", "paper", "ours", "licence", "weights")]
    rows += [_row(describe(name)) for name in names]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _row(model: Description) -> tuple[str, ...]:
    known = (model.method, model.data, model.epochs, model.paper_number, model.our_number, model.licence)
    weights = "published" if model.source else "-"
    return (model.name, *("-" if fact is None else str(fact) for fact in known), weights)


def _describe(options: argparse.Namespace) -> int:
    try:
        print(describe(options.name))
    except UnknownModelError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
