"""Images that stay where the network is: a batch is named by its rows, and no pixel travels for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor


class ResidentPixels:
    """The pixels of N images of any sizes on a device, image behind image."""

    def __init__(self, levels: Tensor, starts: Tensor, sizes: Tensor) -> None:
        """From levels (P, 3), uint8, and for each image its first pixel (N,) and its height and width (N, 2)."""
        self.levels, self.starts, self.sizes = levels, starts, sizes

    def canvases(self, rows: Tensor, height: int, width: int) -> Tensor:
        """Images (B,) in the upper left of black canvases (B, H, W, 3)."""
        down = torch.arange(height, device=rows.device)[:, None]
        right = torch.arange(width, device=rows.device)
        start = self.starts[rows, None, None]
        own_height, own_width = (side[:, None, None] for side in self.sizes[rows].T)
        inside = (down < own_height) & (right < own_width)
        at = torch.where(inside, start + down * own_width + right, 0)
        canvases: Tensor = self.levels.index_select(0, at.flatten()).view(*inside.shape, 3) * inside[..., None]
        return canvases


class ResidentImage(Image.Image):
    """One of those images. Whoever works on it on the host reads it only then."""

    def __init__(
        self, pixels: ResidentPixels, row: int, size: tuple[int, int], read: Callable[[], Image.Image]
    ) -> None:
        """`size` is width and height, as Pillow has it, and `read` gives the image as RGB."""
        super().__init__()
        self._mode, self._size = "RGB", size
        self.pixels, self.row = pixels, row
        self.read: Callable[[], Image.Image] | None = read

    def load(self) -> Any:
        """Have the pixels on the host: what Pillow calls before it works on any of its images."""
        if self.read is not None:
            self.im, self.read = self.read().im, None
        return super().load()


def resident_rows(images: Sequence[Image.Image]) -> tuple[ResidentPixels, Tensor] | None:
    """The levels that images lie in on a device, and their rows there (B,); None where any of them lies elsewhere."""
    found = [image for image in images if isinstance(image, ResidentImage)]
    if not found or len(found) < len(images) or any(each.pixels is not found[0].pixels for each in found):
        return None
    return found[0].pixels, torch.tensor([each.row for each in found])
