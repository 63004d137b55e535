"""Batches whose keys are of other images than their queries: ShuffleBN's shuffle, made where images are read.

MoCo (He et al., 2020, section 3.3) sends the images of keys to other GPUs, so that a key is not normalised among the
images of its query. Here every process reads the images whose keys it is to make, and none is ever sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_backbones.data.batches import BatchDataset
from ssl_backbones.data.parts import Request
from ssl_backbones.views import Located, LocatedViews, MultiView
from ssl_backbones.views.geometry import geometry_of


class Exchanged(NamedTuple):
    """Views of two shares of a global batch."""

    views: list[Any]
    """The first of the process's own images, the others of those it took over; (B, 3, S, S) on the device."""
    places: Tensor
    """(G,): the place of each image of the global batch among the images taken over by all processes."""


class SeparateViews:
    """A transform's views, each made of images of its own."""

    def __init__(self, transform: MultiView) -> None:
        self.transform = transform
        self.single = [replace(transform, policies=(policy,)) for policy in transform.policies]

    def on_host(self, images: Sequence[Sequence[Image.Image]], seed: int, request: Request) -> list[Any] | Exchanged:
        """A view of each row of B images: the first drawn for the images asked for, the others for those in exchange.

        Where nothing is in exchange, all are drawn for the images asked for.
        """
        exchange = request.exchange
        first, *_ = self.transform.draw(seed, request.epoch, request.indices)
        _, *others = self.transform.draw(seed, request.epoch, (exchange or request).indices)
        views = [
            single.on_host(row, (drawn,))
            for single, row, drawn in zip(self.single, images, (first, *others), strict=True)
        ]
        return views if exchange is None else Exchanged(views, torch.from_numpy(exchange.places))

    def on_device(self, shown: Sequence[Any] | Exchanged) -> list[Tensor] | Exchanged:
        """The same views, normalised (B, 3, S, S), from what the host made of them."""
        made, places = views_and_places(shown)
        views = [single.on_device(view)[0] for single, view in zip(self.single, made, strict=True)]
        return views if places is None else Exchanged(views, places)


@final
class ExchangedBatches(BatchDataset):
    """Batches whose first view is of the images asked for, and whose other views are of those in exchange.

    Asked for nothing in exchange, they are batches like others. Places of views are those in the images asked for.
    """

    transform: MultiView | LocatedViews

    @property
    def located(self) -> bool:
        """True if places of views are handed over."""
        return isinstance(self.transform, LocatedViews)

    @property
    def separate(self) -> SeparateViews:
        """The views, each made of images of its own."""
        return SeparateViews(self.transform.views if isinstance(self.transform, LocatedViews) else self.transform)

    def content(self, request: Request, unreadable: dict[str, str]) -> Any:
        """The views on the host; Exchanged where the request has images in exchange, inside of Located if they are."""
        if request.exchange is None:
            return self.shown(request, unreadable)[1]
        own, others = request.indices.tolist(), request.exchange.indices.tolist()
        both = replace(request, indices=np.array(list(dict.fromkeys(own + others)), np.int64))
        images = dict(zip(both.indices.tolist(), self.read_all(both, unreadable)[1], strict=True))
        first, rest = ([images[index] for index in share] for share in (own, others))
        shown = self.separate.on_host([first, *[rest] * (len(self.separate.single) - 1)], self.seed, request)
        if not self.located:
            return shown
        drawn = self.transform.draw(self.seed, request.epoch, request.indices)
        return Located(shown, geometry_of(first, self.separate.transform.policies, drawn))

    def on_device(self, content: Any) -> Any:
        """The views (B, 3, S, S), normalised; Exchanged and Located where the content is."""
        if isinstance(content, Located) and isinstance(content.views, Exchanged):
            return Located(self.separate.on_device(content.views), content.geometry)
        return self.separate.on_device(content) if isinstance(content, Exchanged) else super().on_device(content)


def views_and_places(shown: Sequence[Tensor] | Exchanged) -> tuple[Sequence[Tensor], Tensor | None]:
    """The views, and the places of the images whose keys were exchanged; None where they were not."""
    return shown if isinstance(shown, Exchanged) else (shown, None)
