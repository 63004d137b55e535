"""`ssl-backbones convert FILE --out DIR`: a checkpoint of another project becomes a folder that plain timm loads."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import timm

from ssl_backbones.convert import ConversionError, convert
from ssl_backbones.hub.export import save_backbone


def add(commands: Any) -> None:
    """Add the command to a parser's."""
    command = commands.add_parser("convert", help="turn another project's checkpoint into a folder that timm loads")
    command.add_argument("file", type=Path, help=".pth, .pth.tar, .safetensors or .npz")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    command.add_argument("--licence", help="of the weights, as their publisher states it")
    command.add_argument("--architecture", help="refuse any other, as in resnet50")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Convert, write, and say what was found and what was left out."""
    if options.architecture and not timm.is_model(options.architecture):
        raise ConversionError(f"timm knows no architecture {options.architecture!r}: name one such as 'resnet50'")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise ConversionError(f"{str(options.out)!r} is not an empty folder: name a new one with --out")
    converted = convert(options.file, options.architecture)
    model = timm.create_model(converted.architecture, num_classes=0)
    model.load_state_dict(converted.weights)
    with options.file.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    notes = f"; {converted.notes}" if converted.notes else ""
    description = f"converted from {options.file.name} (sha256 {sha256}), in the layout of {converted.layout}{notes}"
    side = 32 if converted.architecture in timm.list_models(module="small_resnet") else 224
    crop = 1.0 if side == 32 else 0.875
    save_backbone(
        model,
        options.out,
        converted.architecture,
        input_size=(3, side, side),
        crop_pct=crop,
        license=options.licence,
        description=description,
    )
    print(f"{options.out}: a {converted.architecture}, {description}; {len(converted.heads)} tensors of heads left out")
    return 0
