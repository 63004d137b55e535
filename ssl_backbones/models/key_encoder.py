"""Keys whose batch statistics do not give the answer away.

A network can recognise its own batch by the batch's statistics, and then needs nothing else to pick the one key of
this batch among a queue of older ones. MoCo (He et al., 2020, section 3.3) therefore computes a key on another GPU
than its query. One process does the same with groups of the batch that are normalised apart.
"""

from __future__ import annotations

import warnings
from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_backbones.checks import check_momentum, check_positive
from ssl_backbones.distributed import gather, own_rows, same_permutation, world_size
from ssl_backbones.models.batch_norm import split_batch_norm, synchronise_batch_norm
from ssl_backbones.typed.values import check_choices

KeyBN = Literal["shuffle", "sync", "ema", "plain"]
"""Batch statistics of queries and keys: apart and shuffled, of the whole batch, averaged for keys, or unguarded."""


@dataclass(frozen=True)
class KeyEncoderConfig(ABC):  # noqa: B024  # fields alone
    """MoCo's key encoder: the pace of the slow copy, and the guard of its batch statistics."""

    momentum: float = 0.999
    """EMA momentum of the key encoder."""
    key_bn: KeyBN = "shuffle"
    """Batch statistics of queries and keys: apart and shuffled, of the whole batch, averaged for keys, or unguarded."""
    bn_splits: int = 8
    """Groups with batch statistics of their own under "shuffle", over all processes together: MoCo's eight GPUs."""

    def __post_init__(self) -> None:
        check_momentum("momentum", self.momentum)
        check_positive(bn_splits=self.bn_splits)
        check_choices(self)


def guard_batch_norm(method: nn.Module, key_bn: KeyBN, splits: int) -> None:
    """Exchange the method's BatchNorms for those that `key_bn` asks for, `splits` groups over all processes."""
    if key_bn == "sync":
        synchronise_batch_norm(method)
    if key_bn == "shuffle" and splits > 1:
        split_batch_norm(method, splits)
    if key_bn == "plain" or (key_bn == "shuffle" and max(splits, world_size()) == 1):
        warnings.warn(
            "queries and keys share their batch statistics, by which a network can tell its own batch without looking "
            "at the images: use key_bn='shuffle' with bn_splits of 2 or more, or key_bn='ema'",
            stacklevel=3,
        )


@torch.no_grad()
def encode_keys(
    encode: Callable[[Tensor], tuple[Tensor, ...]], view: Tensor, shuffle: bool, places: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The keys (G, ...) of all processes' views (B, 3, H, W), in rank order.

    Shuffled, each is encoded among other images than its query: the views change processes here, unless they are of
    images that have done so already, and stand at these `places` (G,).
    """
    if places is not None:
        return tuple(gather(part)[places] for part in encode(view))
    if not shuffle:
        return tuple(gather(part) for part in encode(view))
    everyone = gather(view)
    order = same_permutation(len(everyone), view.device)
    mine = own_rows(order, len(view))
    return tuple(gather(part)[order.argsort()] for part in encode(everyone[mine]))
