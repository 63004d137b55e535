"""Weights of a network that lie on this machine already, to hold others against; nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import timm
from huggingface_hub import try_to_load_from_cache
from torch import nn

from ssl_backbones.catalogue.lookup import create_model
from ssl_backbones.fetch.kept import CHECKPOINT, RECORD, folder_of
from ssl_backbones.registry.tags import TAGS, Tag

Network = TypeVar("Network")


@dataclass(frozen=True)
class Candidate(Generic[Network]):
    """A network to compare, which is made when its turn comes."""

    name: str
    make: Callable[[], Network]
    images: str = ""
    """The images that it was trained on, where they are known to be others."""
    once: bool = False
    """Left out where an earlier one has the same weights."""


def weights_at_hand(architecture: str, other_than: str = "") -> Candidate[nn.Module] | None:
    """The best weights of an architecture that ship with the package, were fetched, or lie in the Hub's cache.

    Those trained on the images of the fingerprint `other_than` are left out: they would not be a stranger's. None
    where there are none.
    """
    here = [tag for tag in TAGS if tag.backbone == architecture and is_here(tag)]
    strangers = [tag for tag in here if other_than not in tag.data.fingerprints]
    if strangers:
        best = max(strangers, key=worth)
        make = partial(create_model, best.name, pretrained=True, num_classes=0)
        return Candidate(best.name, make, best.data.name, once=True)
    return of_timm(architecture)


def is_here(tag: Tag) -> bool:
    """True if weights ship, or were fetched or imported."""
    folder = folder_of(tag.name)
    return tag.file is not None or all((folder / name).is_file() for name in (RECORD, CHECKPOINT))


def worth(tag: Tag) -> float:
    """Linear accuracy in %, as it was measured here or by the publisher; 0 where nobody says."""
    return tag.our_number or (tag.origin.number if tag.origin else 0.0)


def of_timm(architecture: str) -> Candidate[nn.Module] | None:
    """timm's own weights of an architecture, if the Hub's cache has them."""
    if not timm.is_model_pretrained(architecture):
        return None
    cfg = timm.get_pretrained_cfg(architecture)
    file = try_to_load_from_cache(cfg.hf_hub_id, "model.safetensors") if cfg and cfg.hf_hub_id else None
    if cfg is None or not isinstance(file, str):
        return None
    overlay = {"file": file}
    make = partial(create_model, architecture, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    return Candidate(f"{architecture}.{cfg.tag}" if cfg.tag else architecture, make, once=True)
