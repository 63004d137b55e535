"""A ResNet as torchvision names it: a flat dictionary without `fc`."""

from __future__ import annotations

import io
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from ssl_backbones.files import write_file
from ssl_backbones.hub.sidecar import stages, write_sidecar


def save_torchvision(model: nn.Module, file: Path, architecture: str) -> None:
    """Write the weights as .safetensors or, by any other suffix, as torch.save does; `fc` alone is missing."""
    weights = dict(stages(model, architecture, "torchvision"))
    if file.suffix == ".safetensors":
        write_file(file, safetensors.torch.save(weights, metadata={"format": "pt"}))
    else:
        content = io.BytesIO()
        torch.save(weights, content)
        write_file(file, content.getvalue())
    write_sidecar(file, model, architecture, {"format": "torchvision", "left_out": ["fc.weight", "fc.bias"]})
