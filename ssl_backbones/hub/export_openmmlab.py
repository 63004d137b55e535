"""A ResNet as mmdet and mmseg take it: torchvision's names in a `state_dict`, with a `meta` beside."""

from __future__ import annotations

import re
from pathlib import Path

from torch import nn

from ssl_backbones.hub.export import preparation
from ssl_backbones.hub.sidecar import Exported, ExportError, plain_resnet, saved


def as_openmmlab(model: nn.Module, file: Path, architecture: str) -> Exported:
    """`{"meta", "state_dict"}` for `init_cfg=dict(type="Pretrained", checkpoint=FILE)` of `type="ResNet"`.

    Not for ResNetV1c, whose stem is three convolutions; `style="pytorch"` has the stride where these weights have it.
    """
    if not (depth := re.fullmatch(r"resnet(\d+)", architecture)):
        raise ExportError(
            f"mmdet and mmseg know ResNets by their depth, and {architecture!r} has none: take --format onnx"
        )
    weights = plain_resnet(model, architecture, "mmdet and mmseg")
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
    content = saved({"meta": {"data_preprocessor": preprocessor}, "state_dict": weights})
    settings = {"format": "mmdet, mmseg", "backbone": backbone, "data_preprocessor": preprocessor}
    return Exported(content, settings)
