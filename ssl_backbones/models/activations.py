"""The bytes that autograd keeps of a network's forward pass for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ssl_backbones.models.backbone import feature_map, modes_kept

IMAGES, SIDE = 2, 64
"""The batch by which bytes are counted; they grow with its pixels."""


@contextmanager
def counted(network: nn.Module) -> Iterator[dict[int, int]]:
    """Context manager: the bytes of each storage that autograd keeps meanwhile, the network's own left out."""
    own = {tensor.untyped_storage()._cdata for tensor in network.state_dict().values()}
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield found


def bytes_of_a_pixel(backbone: nn.Module) -> float:
    """Bytes kept for the backward pass, per pixel of an image; ValueError for what has no feature maps.

    A backbone on the meta device computes nothing.
    """
    like = next(backbone.parameters())
    with modes_kept(backbone), counted(backbone) as storages:
        features = feature_map(backbone.train(), torch.zeros(IMAGES, 3, SIDE, SIDE, device=like.device))
    return sum(storages.values()) / (len(features) * SIDE**2)
