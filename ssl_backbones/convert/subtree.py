"""The sub-trees of a checkpoint that may be a headless network, found by the names of their tensors.

A layout is a prefix: `encoder_q.` of MoCo, `backbone.` of solo-learn, `state_dict.backbone.0.` and the like. So no list
of projects is kept; a sub-tree must hold every tensor of one network in its shape, and nothing beside them but heads.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import timm
import torch
from torch import Tensor

from ssl_backbones.registry.backbones import BACKBONES
from ssl_backbones.weightless import weightless

COUNTER = "num_batches_tracked"
"""A counter of norms: torch writes it since 0.4.1, and none of these networks reads it."""
HEADS = frozenset(
    {"classifier", "fc", "head", "heads", "linear", "neck", "prediction", "predictor", "projection", "projector"}
    | {"prototypes", "queue"}
)
"""Words in the names of parts that may lie beside a network's own, as its classifier does: `projection_head`."""
NUMBERED = tuple(
    {"conv1": "0", "bn1": "1", **{f"layer{stage}": str(stage + shift) for stage in (1, 2, 3, 4)}} for shift in (3, 1)
)
"""Names in `Sequential(*list(resnet.children())[:-1])`, with torchvision's activation and pooling and without."""
SHORTCUT = (".downsample.", ".shortcut.")
"""A downsample, as torchvision calls it and as networks for CIFAR do."""


@dataclass(frozen=True)
class Subtree:
    """The tensors under a prefix, held against the network that they fit best."""

    prefix: str
    architecture: str
    weights: Mapping[str, Tensor]
    """Under timm's names."""
    used: frozenset[str]
    """The keys of the file that these are."""
    faults: Mapping[str, Sequence[str]]
    """Reasons why it does not fill the network, and the keys of each; all empty where it does."""

    @property
    def count(self) -> int:
        """The number of its faults."""
        return sum(map(len, self.faults.values()))

    def equals(self, other: Subtree) -> bool:
        """True if both hold the same tensors, as where a module is kept under two names."""
        return self.weights.keys() == other.weights.keys() and all(
            torch.equal(value, other.weights[key]) for key, value in self.weights.items()
        )


def subtrees(tensors: Mapping[str, Tensor], architecture: str | None = None) -> list[Subtree]:
    """The sub-trees of a file's tensors (...) with more than half the names of a network, held against the nearest.

    With `architecture`, held against that one, whatever network they look like.
    """
    split = [pair for key in tensors for pair in _split(key)]
    found: dict[str, list[tuple[str, Mapping[str, str]]]] = {}
    for network in dict.fromkeys([*BACKBONES, *([architecture] if architecture else [])]):
        for spelling in spellings(network):
            counts = Counter(prefix for prefix, name in split if name in spelling)
            for prefix in (prefix for prefix, count in counts.items() if 2 * count > len(spelling)):
                found.setdefault(prefix, []).append((network, spelling))
    asked = [(architecture, spelling) for spelling in spellings(architecture)] if architecture else []
    return [
        min((_held(prefix, under, *spelt) for spelt in asked or likely), key=lambda subtree: subtree.count)
        for prefix, likely in found.items()
        for under in [_under(prefix, tensors, [other for other in found if other != prefix])]
    ]


def _under(prefix: str, tensors: Mapping[str, Tensor], others: Iterable[str]) -> dict[str, Tensor]:
    """The tensors under a prefix that are not those of another network within it, by the rest of their keys."""
    deeper = tuple(other for other in others if other.startswith(prefix))
    return {
        key.removeprefix(prefix): value
        for key, value in tensors.items()
        if key.startswith(prefix) and not (deeper and key.startswith(deeper))
    }


def _split(key: str) -> Iterator[tuple[str, str]]:
    """A key as a prefix and a name, at every dot."""
    yield "", key
    for dot in re.finditer(r"\.", key):
        yield key[: dot.end()], key[dot.end() :]


def _held(prefix: str, under: Mapping[str, Tensor], architecture: str, spelling: Mapping[str, str]) -> Subtree:
    """The tensors under a prefix, held against a network in one spelling of its names."""
    shapes = shapes_of(architecture)
    weights = {name: under[key] for key, name in spelling.items() if key in under}
    faults = {
        "lacks": [name for name in shapes if name not in weights and not name.endswith(COUNTER)],
        "has in excess": [prefix + key for key in under if key not in spelling and not _is_head(key)],
        "has in another shape": [
            f"{name} {tuple(value.shape)} for {shapes[name]}"
            for name, value in weights.items()
            if tuple(value.shape) != shapes[name]
        ],
        "has in another type than floats": [
            name for name, value in weights.items() if not name.endswith(COUNTER) and not value.is_floating_point()
        ],
    }
    return Subtree(prefix, architecture, weights, frozenset(prefix + key for key in under if key in spelling), faults)


def _is_head(key: str) -> bool:
    """True if the first part of a name says that it is a head."""
    return not HEADS.isdisjoint(re.split(r"[._/]", key.partition(".")[0]))


@cache
def spellings(architecture: str) -> tuple[Mapping[str, str], ...]:
    """The names that files give a network's tensors, and timm's of each: timm's own, and those of a Sequential."""
    names = list(shapes_of(architecture))
    found = []
    for numbers in ({}, *NUMBERED):
        for shortcut in SHORTCUT:
            parts = (name.replace(SHORTCUT[0], shortcut).partition(".") for name in names)
            spelt = (numbers.get(top, top) + dot + rest for top, dot, rest in parts)
            found.append(dict(zip(spelt, names, strict=True)))
    return tuple(found)


@cache
def shapes_of(architecture: str) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor of a headless network, in its order."""
    with weightless():
        model = timm.create_model(architecture, num_classes=0)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}
