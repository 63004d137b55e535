"""An exported file and the JSON beside it: how images are to be prepared, whose the weights are, how to load them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssl_backbones.credentials import holds_token
from ssl_backbones.files import write_file, write_json
from ssl_backbones.hub.export import preparation
from ssl_backbones.outputs import together
from ssl_backbones.refusal import Refusal


class ExportError(Refusal, ValueError):
    """A backbone that a format cannot hold, or a file that cannot be written; the message says what would work."""


@dataclass(frozen=True)
class Exported:
    """A backbone in the format of a library."""

    content: bytes
    """Bytes of the file."""
    how: Mapping[str, Any]
    """The way to load it, as the JSON beside it tells."""


def write_exported(file: Path, model: nn.Module, architecture: str, exported: Exported) -> None:
    """Write the file, and `FILE.json` beside it: its hash, preparation, licence and origin, and how it is loaded.

    Raises ExportError, with nothing written, where one of them would hold an access token.
    """
    cfg: Any = model.pretrained_cfg
    told = ("license", "description", "origin_url", "paper_name", "paper_ids", "tag")
    beside = {
        "file": file.name,
        "sha256": hashlib.sha256(exported.content).hexdigest(),
        "architecture": architecture,
        "preparation": preparation(model),
        **{name: cfg[name] for name in told if cfg.get(name)},
        **exported.how,
    }
    check_no_token({"the weights": exported.content, "the description of the model": json.dumps(beside).encode()})
    path = described_in(file)
    with together((file, path)):
        write_file(file, exported.content)
        write_json(path, beside)


def described_in(file: Path) -> Path:
    """The JSON beside an exported file."""
    return file.with_name(f"{file.name}.json")


def check_no_token(parts: Mapping[str, bytes], refusal: type[Exception] = ExportError) -> None:
    """Refuse to write, or to send, what looks like somebody's access token; `parts` are contents by their names."""
    for name, content in parts.items():
        if holds_token(content):
            raise refusal(f"{name} would hold what looks like an access token: take it out, and revoke the token")


def saved(value: Any) -> bytes:
    """A value as torch.save writes it."""
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


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
