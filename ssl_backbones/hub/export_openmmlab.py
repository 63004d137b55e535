"""A ResNet as mmdet and mmseg take it: torchvision's names in a `state_dict`, with a `meta` beside."""

from __future__ import annotations

import io
import re
from pathlib import Path

import torch
from torch import nn

from ssl_backbones.files import write_file
from ssl_backbones.hub.sidecar import ExportError, preparation, stages, write_sidecar


def save_openmmlab(model: nn.Module, file: Path, architecture: str) -> None:
    """Write `{"meta", "state_dict"}` for `init_cfg=dict(type="Pretrained", checkpoint=FILE)` of `type="ResNet"`.

    Not for ResNetV1c, whose stem is three convolutions; `style="pytorch"` has the stride where these weights have it.
    """
    if not (depth := re.fullmatch(r"resnet(\d+)", architecture)):
        raise ExportError(
            f"mmdet and mmseg know ResNets by their depth, and {architecture!r} has none: take --format onnx"
        )
    weights = dict(stages(model, architecture, "mmdet and mmseg"))
    prepared = preparation(model)
    preprocessor = {
        "mean": [round(255 * mean, 3) for mean in prepared["mean"]],
        "std": [round(255 * std, 3) for std in prepared["std"]],
        "bgr_to_rgb": True,
    }
    backbone = {
        "type": "ResNet",
        "depth": int(depth[1]),
        "style": "pytorch",
        "init_cfg": {"type": "Pretrained", "checkpoint": file.name},
    }
    content = io.BytesIO()
    torch.save({"meta": {"data_preprocessor": preprocessor}, "state_dict": weights}, content)
    write_file(file, content.getvalue())
    settings = {"format": "mmdet, mmseg", "backbone": backbone, "data_preprocessor": preprocessor}
    write_sidecar(file, model, architecture, settings)
