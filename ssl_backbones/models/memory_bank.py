"""A memory with an embedding of every image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_backbones.distributed import gather
from ssl_backbones.models.held_back import HeldBack
from ssl_backbones.models.image_rows import rows_from_state


class MemoryBank(nn.Module):
    """The mean of each image's past embeddings, brought to length one, the last ones first. Wu et al., 2018.

    Every process holds all of it and moves the same rows; of ImageNet's 1.28 million images, 128 numbers each are
    656 MB on the device and in a checkpoint. Nothing here waits for the device.
    """

    keys: Tensor
    """(N, dim), without rows until `of_images` or a state that is loaded."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(0, dim))
        rows_from_state(self, "keys")
        self.offered = HeldBack()

    def of_images(self, count: int, seed: int) -> None:
        """Begin with a row for each of so many images, drawn from the seed, unless there are as many: about unit ones.

        Uniform in each direction, as the authors' code has it.
        """
        if len(self.keys) == count:
            return
        dim = self.keys.shape[1]
        drawn = torch.rand(count, dim, generator=torch.Generator().manual_seed(seed))
        self.keys = (3 / dim) ** 0.5 * (2 * drawn - 1).to(self.keys)

    def offer(self, rows: Tensor, embeddings: Tensor) -> None:
        """Hold back the embeddings (B, dim) of the images at these rows (B,) of all processes, until `commit`.

        In evaluation mode nothing is held: nobody will commit it.
        """
        if self.training:
            self.offered.hold(gather(rows), gather(embeddings))

    @torch.no_grad()
    def commit(self, momentum: float) -> None:
        """Move the rows of what was offered: momentum of the old and the rest of the new, to length one.

        Of an image that was offered twice, in the place of another that cannot be read, the first counts.
        """
        if not (offered := self.offered.take()):
            return
        rows, embeddings = offered
        first = (rows[:, None] == rows).int().argmax(1)
        moved = momentum * self.keys[rows] + (1 - momentum) * embeddings[first].to(self.keys.dtype)
        self.keys.index_copy_(0, rows, normalize(moved, dim=1))
