"""The frame of an image by its header alone: its size as stored and as read, and the EXIF turn between the two."""

from __future__ import annotations

import io
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from ssl_backbones.data.decode import MAX_PIXELS, without_pillows_warnings
from ssl_backbones.data.formats import formats
from ssl_backbones.data.shortage import require_resources
from ssl_backbones.data.upright import TURNS, turn_of

PNG_NOTES = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")


@dataclass(frozen=True)
class Frame:
    """The pixels of an image as they are stored, and how they are turned when it is read."""

    stored: tuple[int, int]
    """Width and height before the turn."""
    turn: int = 1
    """The EXIF turn, from 1 for none to 8."""

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the image as it is read."""
        width, height = self.stored
        return (height, width) if TURNS[self.turn][0] else (width, height)


def frame_of(encoded: bytes | Path | None, among: tuple[str, ...] | None = None) -> Frame | None:
    """The frame that an encoded image or a file announces; None for one that cannot be read.

    `among` are its possible formats, by default all. No pixel is decoded, but of a PNG with notes behind its pixels.
    """
    try:
        with without_pillows_warnings(), ExitStack() as stack:
            file: BinaryIO = encoded.open("rb") if isinstance(encoded, Path) else io.BytesIO(encoded or b"")
            stack.enter_context(file)
            image = stack.enter_context(Image.open(file, formats=among or formats()))
            small = image.width * image.height <= MAX_PIXELS  # of others nobody sees more than the frame
            if image.format == "PNG" and small and notes_behind_pixels(file):
                image.load()
            return Frame(stored_size(image), turn_of(image))
    except MemoryError:
        raise
    # Pillow answers a broken file with OSError, SyntaxError, ValueError, struct.error and more
    except Exception as error:
        require_resources(error, encoded if isinstance(encoded, Path) else "an image")
        return None


def stored_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Width and height of the pixels that an opened image stores; of a TIFF, new versions of Pillow tell the turned."""
    if isinstance(image, TiffImageFile):
        return int(image.tag_v2[IMAGEWIDTH]), int(image.tag_v2[IMAGELENGTH])
    return image.size


def notes_behind_pixels(file: BinaryIO) -> bool:
    """True for a PNG with a chunk behind its pixels that may hold EXIF data. The file is left where it was."""
    place, behind, found = file.tell(), False, False
    file.seek(8)
    while len(head := file.read(8)) == 8 and not found:
        behind = behind or head[4:] == b"IDAT"
        found = behind and head[4:] in PNG_NOTES
        file.seek(int.from_bytes(head[:4]) + 4, io.SEEK_CUR)
    file.seek(place)
    return found


def turned(values: NDArray[Any], turn: int) -> NDArray[Any]:
    """Values (..., H, W) of stored pixels as those of the upright image."""
    swapped, across, down = TURNS[turn]
    values = values.swapaxes(-1, -2) if swapped else values
    values = values[..., ::-1] if across else values
    values = values[..., ::-1, :] if down else values
    return np.ascontiguousarray(values)


def turned_boxes(boxes: NDArray[np.float32], frame: Frame) -> NDArray[np.float32]:
    """Boxes (N, 4) of left, top, right and bottom among stored pixels as those of the upright image."""
    swapped, across, down = TURNS[frame.turn]
    width, height = frame.upright
    left, top, right, bottom = boxes[:, [1, 0, 3, 2] if swapped else [0, 1, 2, 3]].T
    left, right = (width - right, width - left) if across else (left, right)
    top, bottom = (height - bottom, height - top) if down else (top, bottom)
    return np.stack([left, top, right, bottom], axis=1).astype(np.float32)
