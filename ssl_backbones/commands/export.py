"""Write a backbone in the format of another library.

Examples:
    ssl-backbones export resnet50_swav.in1k_800ep --format detectron2 --out swav.pth
    ssl-backbones export runs/mine --format onnx --out mine.onnx
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ssl_backbones.hub.formats import FORMATS, export
from ssl_backbones.typed.words import Positional


@dataclass(frozen=True)
class Options:
    """The model, the format, and the file."""

    model: Positional[str]
    """A registered name, a timm name, hf-hub:org/name, or a folder of weights."""
    format: Literal[tuple(FORMATS)]  # type: ignore[valid-type]
    """The library that reads it."""
    out: str
    """The file to write; FILE.json comes beside it."""
    overwrite: bool = False
    """Replace files that exist."""


def run(options: Options) -> None:
    """Write the file, and say where it stands how images are to be prepared."""
    path = export(options.model, options.format, options.out, options.overwrite)
    print(f"{path}: written for {options.format}; how to load it and prepare images stands in {path}.json")
