"""An exported file and the JSON beside it: how images are to be prepared, whose the weights are, how to load them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ssl_backbones.credentials import holds_token
from ssl_backbones.files import write_file, write_json
from ssl_backbones.hub.export import layers, preparation, unlike
from ssl_backbones.outputs import together
from ssl_backbones.refusal import Refusal
from ssl_backbones.weightless import weightless

PLAIN = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2")
"""Networks that compute the same in timm, torchvision and detectron2."""
GROUPED = ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")
"""Networks that do in timm and torchvision."""
ABOUT = ("license", "description", "origin_url", "paper_name", "paper_ids", "tag")
"""The fields of timm's description that tell licence and origin."""


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
    beside = {
        "file": file.name,
        "sha256": hashlib.sha256(exported.content).hexdigest(),
        "architecture": architecture,
        "preparation": preparation(model),
        **about(model),
        **exported.how,
    }
    check_no_token({"the weights": exported.content, "the description of the model": json.dumps(beside).encode()})
    path = described_in(file)
    with together((file, path)):
        write_file(file, exported.content)
        write_json(path, beside)


def about(model: nn.Module) -> dict[str, Any]:
    """Licence and origin of a model, as far as its description tells them."""
    cfg: Any = model.pretrained_cfg
    return {name: cfg[name] for name in ABOUT if cfg.get(name)}


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


def plain_resnet(model: nn.Module, architecture: str, format: str, known: Collection[str] = PLAIN) -> dict[str, Tensor]:
    """The tensors (...) of a network that others know by its name and compute alike; ExportError for any other.

    Others go by the tensors' names, and would take those of a network with other layers for their own.
    """
    differing = ""
    if architecture in known:
        with weightless():
            theirs: nn.Module = timm.create_model(architecture, num_classes=0)
        tensors, others = model.state_dict(), theirs.state_dict()
        wrong = unlike(layers(model), layers(theirs)) or sorted(tensors.keys() ^ others.keys())
        if not wrong:
            return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        differing = f", and its {wrong[0]!r} is another"
    raise ExportError(
        f"this {architecture!r} is not for {format}, which takes plain ResNets for RGB alone, {', '.join(known)}"
        f"{differing}: take --format onnx, which holds any network"
    )
