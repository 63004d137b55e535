"""The network in a checkpoint, as the weights of a headless timm network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from ssl_backbones.checks import few
from ssl_backbones.convert import haiku
from ssl_backbones.convert.reading import ConversionError, read_checkpoint
from ssl_backbones.convert.subtree import Subtree, shapes_of, subtrees

COPIES = frozenset({"ema", "k", "key", "momentum", "target"})
"""Words in the names of a network that follows another by an exponential moving average: `momentum_backbone`,
`encoder_k`, `target_net`, `state_dict_ema`. Beside the network that is trained it is left out."""
DINO = ("student.", "teacher.")
"""The two networks of a file of DINO's, iBOT's or EsViT's, of which the teacher is the one that they publish."""


@dataclass(frozen=True)
class Converted:
    """The weights of a headless network, every one of them from the file."""

    weights: dict[str, Tensor]
    architecture: str
    """timm's name of the network."""
    prefix: str
    """The beginning of its keys in the file; empty where they lie bare."""
    left_out: tuple[str, ...]
    """The keys of all other tensors in the file."""
    others: tuple[str, ...] = ()
    """The prefixes of other networks in the file, which a prefix asked for would take."""
    notes: str = ""
    """Remarks on the file, for those who use it."""

    @property
    def source(self) -> str:
        """The place of the network in the file, in words."""
        return f"the network under {self.prefix!r}" if self.prefix else "the network at the top"

    @property
    def rest(self) -> str:
        """The tensors that were left out, in words."""
        tops = Counter(_top(key, self.prefix) for key in self.left_out)
        listed = few([f"{top!r} ({count})" for top, count in tops.items()], 6) if tops else "nothing"
        return f"left out: {listed}" + "".join(f"; --prefix {other!r} takes another network" for other in self.others)


def convert(file: str | PathLike[str], architecture: str | None = None, prefix: str | None = None) -> Converted:
    """The backbone in a file, under timm's names; ConversionError unless it fills all of one network.

    With `architecture`, that network and no other; with `prefix`, the one whose keys begin, or end their beginning,
    with it. Without, there must be one, or one beside its own moving average.
    """
    path = Path(file)
    tensors = haiku.dotted(read_checkpoint(path))
    found = subtrees(tensors, architecture)
    if not found:
        raise ConversionError(
            f"{path.name!r} has no part with the names of a headless {architecture or 'ResNet'}, so nothing was "
            f"loaded (its first keys are {few(tuple(tensors), 4)}): take a checkpoint that holds the backbone itself"
        )
    taken = _named(found, prefix, path.name) if prefix is not None else _only(found, path.name)
    if taken.count:
        listed = "; it ".join(f"{fault} {few(keys, 4)}" for fault, keys in taken.faults.items() if keys)
        raise ConversionError(
            f"{path.name!r} does not fill a headless {taken.architecture}, so nothing was loaded: it {listed}; take "
            "the publisher's whole file, of that architecture"
        )
    weights = {key: taken.weights.get(key, torch.tensor(0)) for key in shapes_of(taken.architecture)}
    if broken := not_finite(weights):
        raise ConversionError(
            f"{path.name!r} holds numbers that are not finite, in {few(broken)}, so nothing was loaded: take another "
            "checkpoint"
        )
    left_out = tuple(key for key in tensors if key not in taken.used)
    others = tuple(other.prefix for other in found if other is not taken and not other.equals(taken))
    notes = haiku.NOTES if haiku.MARK in taken.prefix else ""
    return Converted(weights, taken.architecture, taken.prefix, left_out, others, notes)


def _named(found: Sequence[Subtree], prefix: str, name: str) -> Subtree:
    """The sub-tree that is asked for."""
    whole = prefix if prefix.endswith(".") or not prefix else f"{prefix}."
    matches = [each for each in found if each.prefix == whole]
    matches = matches or [each for each in found if whole and each.prefix.endswith(f".{whole}")]
    if len(matches) != 1:
        raise ConversionError(f"{name!r} has {_listed(found)}, and {prefix!r} names {len(matches)} of them: name one")
    return matches[0]


def _only(found: Sequence[Subtree], name: str) -> Subtree:
    """The sub-tree that is meant where none is asked for; ConversionError where it could be any of several."""
    distinct = [each for n, each in enumerate(found) if not any(each.equals(other) for other in found[:n])]
    trained = [each for each in distinct if not _is_copy(each.prefix)] or distinct
    if {top for each in trained for top in DINO if each.prefix.startswith(top)} == set(DINO):
        trained = [each for each in trained if not each.prefix.startswith(DINO[0])]
    if len(trained) != 1:
        raise ConversionError(f"{name!r} has {_listed(trained)}: name the one to take with --prefix")
    return trained[0]


def _is_copy(prefix: str) -> bool:
    """True if a prefix says that the network under it is another's moving average."""
    return not COPIES.isdisjoint(re.split(r"[._/]", prefix))


def _listed(found: Sequence[Subtree]) -> str:
    """Networks in words."""
    listed = ", ".join(f"{each.prefix!r} ({each.architecture})" for each in found)
    return f"networks under {listed}" if len(found) > 1 else f"a network under {listed}"


def _top(key: str, prefix: str) -> str:
    """The beginning of a key, as far as its first part that is not the prefix's."""
    parts = key.split(".")
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(parts, prefix.split("."), strict=False))
    return ".".join(parts[: len(list(shared)) + 1])


def not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors (...) that hold numbers that are not finite."""
    return [key for key, value in weights.items() if not value.isfinite().all()]
