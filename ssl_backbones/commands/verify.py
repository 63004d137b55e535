"""Prove that a bundle arrived whole, and say how to load its models.

Examples:
    ssl-backbones verify carried
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssl_backbones.hub.bundle import verify_bundle
from ssl_backbones.typed.words import Positional


@dataclass(frozen=True)
class Options:
    """The bundle."""

    folder: Positional[Path]
    """The folder that `ssl-backbones bundle` wrote."""


def run(options: Options) -> None:
    """Say how to load each model of a bundle that is whole."""
    for folder in verify_bundle(options.folder):
        print(f"ssl_backbones.create_model({str(folder)!r}, pretrained=True)")
