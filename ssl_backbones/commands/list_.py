"""List the models there are, in a table with what is known of them.

Examples:
    ssl-backbones list
    ssl-backbones list --pretrained
    ssl-backbones list 'resnet50_*'
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ssl_backbones.catalogue.description import Description
from ssl_backbones.catalogue.lookup import describe, list_models
from ssl_backbones.checks import brief
from ssl_backbones.registry.backbones import BACKBONES
from ssl_backbones.typed.words import Positional

HEAD = ("name", "method", "data", "epochs", "paper", "theirs", "ours", "licence", "weights")


@dataclass(frozen=True)
class Options:
    """The models to list."""

    pattern: Positional[str] = ""
    """Wildcard for the names, such as 'resnet50_*' (quote it); without one, names without weights are told in short."""
    pretrained: bool = False
    """List only names whose weights ship or can be fetched."""


def run(options: Options) -> int:
    """Print a row for each model; 1 if there is none."""
    names = list_models(options.pattern, options.pretrained, include_tags=True)
    if not names:
        which = "model with published weights" if options.pretrained else "model"
        print(f"no {which} matches {brief(repr(options.pattern or '*'))}", file=sys.stderr)
        return 1
    found = [describe(name) for name in names]
    known = [model for model in found if options.pattern or model.origin or model.data]
    rows = [HEAD, *map(row, known)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    if others := [model.name for model in found if model not in known]:
        print(in_short(others), file=sys.stderr)
    return 0


def in_short(names: list[str]) -> str:
    """A sentence about names without weights: the networks, and the methods that they are named with."""
    of = {network: [name for name in names if name.startswith(f"{network}_")] for network in BACKBONES}
    methods = sorted({name.removeprefix(f"{network}_") for network, named in of.items() for name in named})
    return (
        f"\n{len(names)} more names are for training and have no weights: NETWORK_METHOD, where NETWORK is one of "
        f"{', '.join(filter(of.get, of))}, and METHOD one of {', '.join(methods)}; "
        "`ssl-backbones list 'NETWORK*'` lists them"
    )


def row(model: Description) -> tuple[str, ...]:
    """The facts of a model, a cell each."""
    origin = model.origin
    theirs = origin.number if origin else None
    images = f" (images: {model.data_terms})" if model.data_terms else ""
    licence = f"{model.terms}{images}" if model.licence else None
    known = (model.method, model.data, model.epochs, model.paper_number, theirs, model.our_number, licence)
    where = (origin.publisher if model.source else f"{origin.publisher}, by hand") if origin else model.source or "-"
    return (model.name, *("-" if fact is None else str(fact) for fact in known), where)
