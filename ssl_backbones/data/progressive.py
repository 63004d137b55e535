"""Batches whose views grow with the epochs: small images cost less, and early epochs need no large ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from ssl_backbones.data.batches import BatchDataset
from ssl_backbones.data.parts import Request


@final
class ProgressiveBatches(BatchDataset):
    """Batches of which each epoch's views have a side of their own, and are otherwise drawn as if they had not."""

    def __init__(self, batches: BatchDataset, sides: Sequence[int]) -> None:
        """`sides` are those of the epochs; ValueError for views that cannot be made at another side."""
        super().__init__(batches.images, batches.transform, batches.seed)
        self.sides = tuple(sides)
        self.at_side = {side: batches.at(side) for side in sorted(set(sides))}

    def content(self, request: Request, unreadable: dict[str, str]) -> tuple[int, Any]:
        """The side of the epoch's views, and what the batches at that side hold."""
        side = self.sides[request.epoch]
        return side, self.at_side[side].content(request, unreadable)

    def on_device(self, content: tuple[int, Any]) -> Any:
        """The method's input, as the batches at that side make it."""
        side, shown = content
        return self.at_side[side].on_device(shown)


def progressive(batches: BatchDataset, sides: Sequence[int]) -> BatchDataset:
    """The batches with views of the sides of the epochs; the same where no epoch has another than the last."""
    return ProgressiveBatches(batches, sides) if len(set(sides)) > 1 else batches
