"""Images as the rows of a table have them: encoded, or the name of a file; decoded by the policy for odd images."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from PIL import Image

from ssl_backbones.data.decode import DecodePolicy, decode
from ssl_backbones.data.images import Images, UnreadableImageError
from ssl_backbones.data.keys import bytes_of


class RowImages(Images):
    """A subclass knows where its rows lie."""

    policy: DecodePolicy

    @abstractmethod
    def encoded(self, index: int) -> bytes | Path | None:
        """An image as its row has it, or the file that the row names; None where it has neither."""

    def __getitem__(self, index: int) -> Image.Image:
        encoded, key = self.encoded(index), self.keys[index]
        if encoded is None:
            raise UnreadableImageError(f"{key!r} cannot be read: its row holds no image")
        return decode(encoded, key, self.policy)

    def raw(self, index: int) -> bytes | None:
        encoded = self.encoded(index)
        return bytes_of(encoded) if isinstance(encoded, Path) else encoded
