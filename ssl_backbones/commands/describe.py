"""Describe a model: its method, data, paper, licence and figures.

Examples:
    ssl-backbones describe resnet50_lewel_b.in1k_400ep
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ssl_backbones.catalogue.lookup import describe
from ssl_backbones.registry.errors import UnknownModelError
from ssl_backbones.typed.words import Positional


@dataclass(frozen=True)
class Options:
    """The model."""

    model: Positional[str]
    """A name from `ssl-backbones list`, a timm name, hf-hub:org/name, or a folder of weights."""


def run(options: Options) -> int:
    """Print the description; 1 if there is no such model."""
    try:
        print(describe(options.model))
    except UnknownModelError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
