"""Batches whose keys are of other images than their queries: ShuffleBN's shuffle, made where images are read.

MoCo (He et al., 2020, section 3.3) sends the images of keys to other GPUs, so that a key is not normalised among the
images of its query. Here every process reads the images whose keys it is to make, and none is ever sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_backbones.data.batches import Batch, Batches, Request
from ssl_backbones.data.images import Images
from ssl_backbones.views import MultiView


class Exchanged(NamedTuple):
    """Views of two shares of a global batch."""

    views: list[Any]
    """The first of the process's own images, the others of those it took over; (B, 3, S, S) on the device."""
    places: Tensor
    """(G,): where each image of the global batch stands among the images taken over by all processes."""


class ExchangedBatches(Batches):
    """Batches whose first view is of the images asked for, and whose other views are of those in exchange.

    Asked for nothing in exchange, they are batches like others.
    """

    def __init__(self, images: Images, transform: MultiView, seed: int) -> None:
        super().__init__(images, transform, seed)
        first, *others = transform.policies
        self.parts = replace(transform, policies=(first,)), replace(transform, policies=tuple(others))

    def __getitem__(self, request: Request) -> Batch:
        if request.exchange is None:
            return super().__getitem__(request)
        unreadable: dict[str, str] = {}
        shares = request.indices.tolist(), request.exchange.indices.tolist()
        photos = {index: self.read(index, unreadable) for index in dict.fromkeys(shares[0] + shares[1])}
        views = []
        for transform, share, drawn in zip(self.parts, shares, self.drawn(request), strict=True):
            views.append(transform.on_host([photos[index] for index in share], drawn))
        return Batch(Exchanged(views, torch.from_numpy(request.exchange.places)), unreadable)

    def drawn(self, request: Request) -> tuple[Any, Any]:
        """The random choices for the first view, and for the others."""
        assert request.exchange is not None
        first, *_ = self.transform.draw(self.seed, request.epoch, request.indices)
        _, *others = self.transform.draw(self.seed, request.epoch, request.exchange.indices)
        return (first,), tuple(others)

    def on_device(self, content: Any) -> Any:
        if not isinstance(content, Exchanged):
            return super().on_device(content)
        first, others = (part.on_device(views) for part, views in zip(self.parts, content.views, strict=True))
        return Exchanged([*first, *others], content.places)


def taken_apart(shown: Sequence[Tensor] | Exchanged) -> tuple[Sequence[Tensor], Tensor | None]:
    """The views, and the places of the images whose keys were exchanged; None where they were not."""
    return shown if isinstance(shown, Exchanged) else (shown, None)
