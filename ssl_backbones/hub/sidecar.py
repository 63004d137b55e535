"""The JSON beside an exported file: how images are to be prepared, whose the weights are, how to load them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ssl_backbones.files import file_digest, write_json
from ssl_backbones.refusal import Refusal

KEPT = ("input_size", "mean", "std", "interpolation", "crop_pct")
"""Of timm's configuration, how images are prepared."""


class ExportError(Refusal, ValueError):
    """A backbone that a format cannot hold, or a file that cannot be written; the message says what would work."""


def preparation(model: nn.Module) -> dict[str, Any]:
    """A model's preparation of images: size, mean, std, interpolation and crop."""
    cfg: Any = model.pretrained_cfg
    return {name: list(cfg[name]) if isinstance(cfg[name], tuple) else cfg[name] for name in KEPT if name in cfg}


def write_sidecar(file: Path, model: nn.Module, architecture: str, how: Mapping[str, Any]) -> Path:
    """Write `FILE.json` beside an exported file: its hash, preparation, licence and origin, and how it is loaded."""
    cfg: Any = model.pretrained_cfg
    told = ("license", "description", "origin_url", "paper_name", "paper_ids", "tag")
    content = {
        "file": file.name,
        "sha256": file_digest(file),
        "architecture": architecture,
        "preparation": preparation(model),
        **{name: cfg[name] for name in told if cfg.get(name)},
        **how,
    }
    path = file.with_name(f"{file.name}.json")
    write_json(path, content)
    return path


def stages(model: nn.Module, architecture: str, format: str) -> Mapping[str, Any]:
    """The tensors of a ResNet of four stages and a 7 x 7 stem, which are all that detectors know; or ExportError."""
    weights = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    stem = weights.get("conv1.weight")
    if stem is None or tuple(stem.shape) != (64, 3, 7, 7) or "layer4.0.conv1.weight" not in weights:
        raise ExportError(
            f"{architecture!r} is not for {format}, which takes ResNets of four stages with a stem of 7 x 7, "
            "such as resnet18 and resnet50; any network can be exported with --format onnx"
        )
    return {key: value for key, value in weights.items() if not key.startswith("fc.")}
