"""Keep a file that was downloaded by hand as the weights of a name.

Examples:
    ssl-backbones import resnet50_lewel_b.in1k_400ep lewel_b_400ep.pth
"""

from __future__ import annotations

from dataclasses import dataclass

from ssl_backbones.fetch import folder_of, import_file
from ssl_backbones.typed.words import Positional


@dataclass(frozen=True)
class Options:
    """The name, and the file."""

    name: Positional[str]
    """A name with its tag, from `ssl-backbones list`."""
    file: Positional[str]
    """The publisher's own checkpoint."""


def run(options: Options) -> None:
    """Convert the file, keep it, and say what was found in it."""
    converted = import_file(options.name, options.file)
    print(
        f"{options.name} has its weights: {len(converted.weights)} tensors of a {converted.architecture}, "
        f"{converted.source}; {converted.rest}; kept in {folder_of(options.name)}"
    )
    if converted.notes:
        print(f"note: {converted.notes}")
