"""A checkpoint in any known layout, as the weights of a headless timm network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path

import timm
import torch
from torch import Tensor

from ssl_backbones.convert.layout import ConversionError, Layout, Parts
from ssl_backbones.convert.layouts import LAYOUTS
from ssl_backbones.convert.reading import read_checkpoint
from ssl_backbones.registry.backbones import BACKBONES

COUNTER = "num_batches_tracked"
"""A counter of norms: torch writes it since 0.4.1, and none of these networks reads it."""


@dataclass(frozen=True)
class Converted:
    """The weights of a headless network, every one of them from the file."""

    weights: dict[str, Tensor]
    architecture: str
    """timm's name of the network."""
    layout: str
    """The label of the file's layout."""
    heads: tuple[str, ...]
    """The keys of the file that belong to heads, and were left out."""
    notes: str = ""


def convert(file: str | PathLike[str], architecture: str | None = None) -> Converted:
    """The backbone in a file, under timm's names; ConversionError unless it fills all of one network.

    With `architecture`, that network and no other.
    """
    path = Path(file)
    tensors = read_checkpoint(path)
    layout, parts = recognise(tensors, path.name)
    if parts.unknown:
        raise ConversionError(
            f"{path.name!r} is in the layout of {layout.label}, but {few(parts.unknown)} {belong(parts.unknown)} "
            "neither to the backbone nor to a head it is known to have: take the publisher's own file"
        )
    name, weights = fit(parts.backbone, path.name, [architecture] if architecture else BACKBONES)
    return Converted(weights, name, layout.label, parts.heads, layout.notes)


def recognise(tensors: Mapping[str, Tensor], name: str) -> tuple[Layout, Parts]:
    """The layout that leaves fewest keys unexplained, and the file's parts in it."""
    found = [(layout, parts) for layout in LAYOUTS if (parts := layout.split(tensors))]
    if not found:
        raise ConversionError(
            f"{name!r} is in no known layout (its first keys are {few(tuple(tensors))}): known are those of "
            f"{', '.join(dict.fromkeys(layout.label for layout in LAYOUTS))}"
        )
    return min(found, key=lambda pair: len(pair[1].unknown))


def fit(backbone: Mapping[str, Tensor], name: str, architectures: Sequence[str]) -> tuple[str, dict[str, Tensor]]:
    """The network that a backbone fills, with its weights in that network's order; ConversionError if it fills none."""
    faults = {architecture: _faults(backbone, architecture) for architecture in architectures}
    nearest = min(faults, key=lambda architecture: sum(map(len, faults[architecture].values())))
    if any(faults[nearest].values()):
        listed = "; it ".join(f"{fault} {few(keys)}" for fault, keys in faults[nearest].items() if keys)
        raise ConversionError(
            f"{name!r} does not fill a headless {nearest}, so nothing was loaded: it {listed}; take the publisher's "
            "whole file, of that architecture"
        )
    shapes = _shapes(nearest)
    weights = {key: backbone[key] if key in backbone else torch.tensor(0) for key in shapes}
    return nearest, weights


def _faults(backbone: Mapping[str, Tensor], architecture: str) -> dict[str, list[str]]:
    """Reasons why a backbone does not fill a network: keys it lacks, has in excess, or has in another shape or kind."""
    wanted = _shapes(architecture)
    return {
        "lacks": [key for key in wanted if key not in backbone and not key.endswith(COUNTER)],
        "has in excess": [key for key in backbone if key not in wanted],
        "has in another shape": [
            f"{key} {tuple(backbone[key].shape)} for {shape}"
            for key, shape in wanted.items()
            if key in backbone and tuple(backbone[key].shape) != shape
        ],
        "has in another type than floats": [
            key for key, value in backbone.items() if not key.endswith(COUNTER) and not value.is_floating_point()
        ],
    }


@cache
def _shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor of a headless network, in its order."""
    with torch.device("meta"):
        model = timm.create_model(architecture, num_classes=0)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def few(keys: Sequence[str], shown: int = 4) -> str:
    """The first keys, and how many more there are."""
    return ", ".join(keys[:shown]) + (f" and {len(keys) - shown} more" if len(keys) > shown else "")


def belong(keys: Sequence[str]) -> str:
    """The verb that goes with the keys."""
    return "belongs" if len(keys) == 1 else "belong"
