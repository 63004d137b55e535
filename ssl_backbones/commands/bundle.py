"""`ssl-backbones bundle MODEL ... --out DIR`, and `ssl-backbones verify DIR` on the machine it was carried to."""

from __future__ import annotations

import argparse
from typing import Any

from ssl_backbones.hub.bundle import verify_bundle, write_bundle


def add(commands: Any) -> None:
    """Add both commands to a parser's."""
    command = commands.add_parser("bundle", help="put models into a folder to carry to a machine without network")
    command.add_argument("models", nargs="+", metavar="MODEL", help="registered names, hf-hub:org/name, or folders")
    command.add_argument("--out", required=True, metavar="DIR", help="the folder to write, new or empty")
    command.set_defaults(run=bundle)

    command = commands.add_parser("verify", help="prove that a bundle arrived whole, and say how to load it")
    command.add_argument("folder", metavar="DIR", help="the bundle")
    command.set_defaults(run=verify)


def bundle(options: argparse.Namespace) -> int:
    """Write the bundle and name its folders."""
    for folder in write_bundle(options.models, options.out):
        print(folder)
    print(f"carry {options.out} over and run `ssl-backbones verify` on it there")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Say how to load each model of a bundle that is whole."""
    for folder in verify_bundle(options.folder):
        print(f"ssl_backbones.create_model({str(folder)!r}, pretrained=True)")
    return 0
