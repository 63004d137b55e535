"""Checkpoints of supervised contrastive learning and of SimCLR beside it. Khosla et al., 2020.

Trained on several GPUs, the wrapper's prefix stands inside; networks for small images call a downsample a shortcut,
and have a stem of 3 x 3 that no registered network has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ssl_backbones.convert.layout import Layout, Parts, Prefixed

_BARE = Prefixed("SupCon", "encoder.", heads=("head.",), within=("fc.weight", "fc.bias"))
_WRAPPED = Prefixed("SupCon", "encoder.module.", heads=("head.",))


@dataclass(frozen=True)
class SupCon(Layout):
    """An encoder, with or without a wrapper of its own, and a head."""

    label: str = "SupCon"
    notes: str = ""

    def split(self, tensors: Mapping[str, Tensor]) -> Parts | None:
        """The encoder, its shortcuts called downsample."""
        parts = _WRAPPED.split(tensors) or _BARE.split(tensors)
        if parts is None:
            return None
        backbone = {key.replace(".shortcut.", ".downsample."): value for key, value in parts.backbone.items()}
        return Parts(backbone, parts.heads, parts.unknown)


SUPCON = SupCon()
