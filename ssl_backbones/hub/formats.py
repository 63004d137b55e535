"""Backbones in the formats of other libraries."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from torch import nn

from ssl_backbones.catalogue.lookup import create_model, describe
from ssl_backbones.hub.export_detectron2 import as_detectron2
from ssl_backbones.hub.export_onnx import as_onnx
from ssl_backbones.hub.export_openmmlab import as_openmmlab
from ssl_backbones.hub.export_torchvision import as_torchvision
from ssl_backbones.hub.sidecar import Exported, ExportError, described_in, write_exported
from ssl_backbones.outputs import check_output

FORMATS: dict[str, Callable[[nn.Module, Path, str], Exported]] = {
    "torchvision": as_torchvision,
    "detectron2": as_detectron2,
    "mmdet": as_openmmlab,
    "mmseg": as_openmmlab,
    "onnx": as_onnx,
}
"""The formats by their names on the command line."""


def export(model: str | os.PathLike[str], format: str, file: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write the weights of a registered name, a timm name, `hf-hub:org/name` or a run's folder; beside them FILE.json.

    ExportError for a format that is none, OutputError for files that exist, unless they may be replaced.
    """
    if format not in FORMATS:
        raise ExportError(f"there is no format {format!r}: there are {', '.join(FORMATS)}")
    path = Path(file)
    for each in (path, described_in(path)):
        check_output(each, overwrite)
    architecture = describe(model).backbone
    network = create_model(model, pretrained=True, num_classes=0).eval()
    write_exported(path, network, architecture, FORMATS[format](network, path, architecture))
    return path
