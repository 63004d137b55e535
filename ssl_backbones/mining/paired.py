"""Batches in which each image comes with views of its partners."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_backbones.data.batches import BatchDataset
from ssl_backbones.data.exchanged import Exchanged, SeparateViews
from ssl_backbones.data.images import Images, UnreadableImageError
from ssl_backbones.data.parts import Request
from ssl_backbones.distributed import gather, own_rows
from ssl_backbones.views import MultiView
from ssl_backbones.views.reduction import Reduction, using_reduction


@final
class PairedBatches(BatchDataset):
    """Batches of views: two of each image, then one of each of its partners, every one drawn for itself.

    `partners` (N, P) are rows of the images, none by default, and the transform has 2 + P policies. With the views come
    `numbers` (N,) of the images shown, by default their rows, (B, 1 + P): of the image and its partners. In place of a
    partner that cannot be read stands the image itself; in place of an image that cannot, another with that one's
    partners.

    Where batches are `exchanged`, the first view is of the process's own images, and the others and the numbers are of
    the images that it took over.
    """

    transform: MultiView

    def __init__(
        self,
        images: Images,
        transform: MultiView,
        seed: int,
        partners: np.ndarray | None = None,
        numbers: np.ndarray | None = None,
        exchanged: bool = False,
    ) -> None:
        super().__init__(images, transform, seed)
        self.partners = np.empty((len(images), 0), np.int64) if partners is None else partners
        self.numbers = np.arange(len(images)) if numbers is None else numbers
        self.exchanged = exchanged

    @property
    def separate(self) -> SeparateViews:
        """The views, each made of images of its own."""
        return SeparateViews(self.transform)

    def content(self, request: Request, unreadable: dict[str, str]) -> tuple[list[Any] | Exchanged, Tensor]:
        """The views on the host, (B, S, S, 3) each, and the numbers (B, P) of images and partners."""
        request = request if self.exchanged else replace(request, exchange=None)
        own, others = request.indices, (request.exchange or request).indices
        both = list(dict.fromkeys([*others.tolist(), *own.tolist()]))
        reductions = self.transform.reductions(self.seed, request.epoch, np.array(both, np.int64))
        coarse = dict(zip(both, reductions, strict=True))
        families = {at: self.family(at, coarse[at], unreadable) for at in dict.fromkeys(others.tolist())}
        shown = [families[index] for index in others.tolist()]
        images = [
            [families[at][0][1] if at in families else self.read(at, unreadable, coarse[at])[1] for at in own.tolist()]
        ]
        images += [[family[partner][1] for family in shown] for partner in range(1 + self.partners.shape[1])]
        numbers = torch.from_numpy(self.numbers[np.array([[row for row, _ in family] for family in shown])])
        return self.separate.on_host(images, self.seed, request), numbers

    def family(self, index: int, reduction: Reduction, unreadable: dict[str, str]) -> list[tuple[int, Image.Image]]:
        """The image at an index and its partners, each with its row, decoded as coarsely as the views of all allow."""
        row, image = self.read(index, unreadable, reduction)
        family = [(row, image)]
        for partner in map(int, self.partners[row]):
            try:
                with using_reduction(reduction):
                    family.append((partner, self.images[partner]))
            except UnreadableImageError as error:
                unreadable[self.images.keys[partner]] = str(error)
                family.append((row, image))
        return family

    def on_device(self, content: Any) -> tuple[list[Tensor] | Exchanged, Tensor]:
        """The normalised views (B, 3, S, S), and the numbers."""
        shown, numbers = content
        return self.separate.on_device(shown), numbers


def numbers_of_queries(numbers: Tensor, places: Tensor | None) -> Tensor:
    """The numbers (B, ...) of this process's queries, given those (B, ...) of the images whose keys it makes.

    `places` (G,) is where each image of the global batch stands among these; None where none were exchanged.
    """
    return numbers if places is None else own_rows(gather(numbers)[places], len(numbers))
