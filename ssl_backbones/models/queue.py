"""The keys of past batches."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_backbones.models.held_back import HeldBack

Mask = Literal["none", "own"]
"""The keys of a queue that are no negatives of a query: none, or those of its own image."""


class Queue(nn.Module):
    """The last `size` keys, unit vectors of `dim` numbers, oldest overwritten first. He et al., 2020, section 3.2.

    Every process holds all of it and enqueues the same keys. Nothing here waits for the device. A `numbered` queue
    also keeps what each key is of.
    """

    measured_anew: ClassVar[tuple[str, ...]] = ("numbers",)
    """Buffers that tell images or classes of a run, and are taken over from no other."""
    keys: Tensor
    """(size, dim)"""
    pointer: Tensor
    """The place of the next key."""
    numbers: Tensor | None
    """(size,): the image or the class of each key, -1 before there is one; None where none are kept."""

    def __init__(self, size: int, dim: int, numbered: bool = False) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"a queue holds at least one key, not queue_size={size}")
        self.register_buffer("keys", normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.register_buffer("numbers", torch.full((size,), -1) if numbered else None)
        self.offered = HeldBack()

    def __len__(self) -> int:
        return len(self.keys)

    def offer(self, keys: Tensor, numbers: Tensor | None = None) -> None:
        """Hold keys (B, dim) back until `commit`: the losses of a step all see the queue as the step began.

        A numbered queue asks for their numbers (B,) as well. In evaluation mode nothing is held: nobody will commit it.
        """
        if self.training:
            self.offered.hold(keys.detach(), *([] if numbers is None else [numbers]))

    def of(self, numbers: Tensor) -> Tensor:
        """The keys (B, K) bool that are of any of the images, or classes, numbered (B, P)."""
        assert self.numbers is not None
        return (numbers[:, :, None] == self.numbers).any(1)

    @torch.no_grad()
    def commit(self) -> None:
        """Take in what was offered, wrapping around; of more keys than fit, the last stay."""
        if not (offered := self.offered.take()):
            return
        keys = normalize(offered[0].to(self.keys.dtype), dim=1)[-len(self) :]
        places = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self)
        self.keys.index_copy_(0, places, keys)
        if self.numbers is not None:
            self.numbers.index_copy_(0, places, offered[1][-len(self) :])
        self.pointer.add_(len(keys)).remainder_(len(self))


def check_queue(
    size: int, images: int, batch_size: int, keys_of_an_image: int = 1, kept_out: str = "mask 'own'"
) -> None:
    """Raise ValueError for a queue of `size` keys that holds the key of most queries' own images, unless `kept_out`.

    That is so where it reaches back further than the N images that are not in the batch. A shorter one of K keys holds
    it for K^2 / 2N^2 of the queries, as each epoch has an order of its own. `kept_out` is the choice of the method by
    which the loss leaves such keys out, empty where there is none.
    """
    most = keys_of_an_image * (images - batch_size)
    if size > most:
        way_out = f"set the method's queue_size to at most {most}" if most > 0 else "add images, or lower the batch"
        choice = f", or keep those out of the loss with the method's {kept_out}" if kept_out else ""
        raise ValueError(
            f"queue_size is {size}, but {images} images and a batch of {batch_size} leave {max(most, 0)} keys of other "
            f"images: a longer queue holds keys of the query's own image; {way_out}{choice}"
        )
