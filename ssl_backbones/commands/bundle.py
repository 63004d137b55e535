"""Put models into a folder to carry to a machine without network.

Examples:
    ssl-backbones bundle resnet50_swav.in1k_800ep runs/mine --out carried
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssl_backbones.hub.bundle import write_bundle
from ssl_backbones.typed.words import Positional


@dataclass(frozen=True)
class Options:
    """The models, and where they go."""

    models: Positional[tuple[str, ...]]
    """Registered names, timm names, hf-hub:org/name, or folders."""
    out: Path
    """The folder to write, new or empty."""


def run(options: Options) -> None:
    """Write the bundle and name its folders."""
    for folder in write_bundle(options.models, options.out):
        print(folder)
    print(f"carry {options.out} over and run `ssl-backbones verify` on it there")
