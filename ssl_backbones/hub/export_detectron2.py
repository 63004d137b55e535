"""A ResNet as detectron2 names it, in the file that MoCo's own conversion made customary; plain tensors, no pickle."""

from __future__ import annotations

import re
from pathlib import Path

from torch import nn

from ssl_backbones.hub.export import preparation
from ssl_backbones.hub.sidecar import Exported, plain_resnet, saved


def as_detectron2(model: nn.Module, file: Path, architecture: str) -> Exported:
    """`{"model": tensors, "matching_heuristics": True}`, which DetectionCheckpointer takes from a .pth."""
    weights = plain_resnet(model, architecture, "detectron2")
    renamed = {detectron2_name(key): value for key, value in weights.items()}
    content = saved({"model": renamed, "__author__": "ssl-backbones", "matching_heuristics": True})
    prepared = preparation(model)
    settings = {
        "MODEL.WEIGHTS": file.name,
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "INPUT.FORMAT": "RGB",
        "MODEL.PIXEL_MEAN": [round(255 * mean, 3) for mean in prepared["mean"]],
        "MODEL.PIXEL_STD": [round(255 * std, 3) for std in prepared["std"]],
    }
    return Exported(content, {"format": "detectron2", "settings": settings})


def detectron2_name(key: str) -> str:
    """detectron2's name of one of timm's tensors: `layer1.0.bn2.weight` is `res2.0.conv2.norm.weight`."""
    stage = re.match(r"layer(\d)\.", key)
    name = f"res{int(stage[1]) + 1}.{key[stage.end() :]}" if stage else f"stem.{key}"
    name = re.sub(r"\.bn(\d)\.", r".conv\1.norm.", name)
    return name.replace(".downsample.0.", ".shortcut.").replace(".downsample.1.", ".shortcut.norm.")
