"""A ResNet as torchvision names it: a flat dictionary without `fc`."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
from torch import nn

from ssl_backbones.hub.sidecar import GROUPED, PLAIN, Exported, plain_resnet, saved


def as_torchvision(model: nn.Module, file: Path, architecture: str) -> Exported:
    """The weights as .safetensors or, by any other suffix, as torch.save writes them; `fc` alone is missing."""
    weights = plain_resnet(model, architecture, "torchvision", (*PLAIN, *GROUPED))
    plain = file.suffix == ".safetensors"
    content = safetensors.torch.save(weights, metadata={"format": "pt"}) if plain else saved(weights)
    return Exported(content, {"format": "torchvision", "left_out": ["fc.weight", "fc.bias"]})
