"""The EXIF turn of an image, and what undoes it."""

from __future__ import annotations

from PIL import Image

ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TURNS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
"""EXIF turn to what makes an image upright: sides exchanged, then mirrored across, then mirrored downwards."""


def turn_of(image: Image.Image) -> int:
    """The EXIF turn of an opened image, from 1 for none to 8; EXIF data that cannot be read ask for none."""
    try:
        # A PNG's own reader of EXIF data would decode its pixels first.
        orientation = Image.Image.getexif(image).get(ORIENTATION)
    # An image is not lost for its broken notes, and Pillow's EXIF reader fails in as many ways as its decoders.
    except Exception:
        return 1
    return orientation if isinstance(orientation, int) and orientation in UPRIGHT else 1


def made_upright(image: Image.Image, turn: int) -> Image.Image:
    """An image after its turn: itself where there is none."""
    return image.transpose(UPRIGHT[turn]) if turn in UPRIGHT else image
