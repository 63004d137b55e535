"""The values of one mask: the class of each pixel, as a grey or palette image keeps it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from ssl_backbones.data import UnreadableImageError
from ssl_backbones.data.channels import check_pixels
from ssl_backbones.data.decode import USUAL_POLICY, DecodePolicy, without_pillows_warnings
from ssl_backbones.refusal import reason

IGNORED = 255
"""The value of pixels that are neither trained on nor asked about."""
MASK_FORMATS = ("PNG", "BMP", "TIFF")
"""Those that keep every value as it is; writers of GIF number their colours anew."""


def decode_mask(mask: bytes | Path | None, name: str, policy: DecodePolicy = USUAL_POLICY) -> np.ndarray:
    """The values (H, W), uint8, of a grey or palette image; UnreadableImageError says what is wrong with `name`."""
    try:
        with (
            without_pillows_warnings(),
            Image.open(mask if isinstance(mask, Path) else io.BytesIO(mask or b"")) as image,
        ):
            return values_of(image, policy)
    except MemoryError:
        raise
    # Pillow answers a broken file with OSError, SyntaxError, ValueError, struct.error and more: all mean the same.
    except Exception as error:
        raise UnreadableImageError(f"the mask {name} cannot be read: {reason(error)}") from error


def values_of(image: ImageFile.ImageFile, policy: DecodePolicy) -> np.ndarray:
    """The values (H, W) that an opened image stores, neither looked up in its palette nor stretched to 8 bits."""
    if image.format not in MASK_FORMATS:
        raise ValueError(f"it is a {image.format}, and only {', '.join(MASK_FORMATS)} keep every value: convert it")
    check_pixels((image.height, image.width), policy.max_pixels)
    stored = image.tile[0][3] if image.format == "PNG" and image.tile else ""
    if (image.mode not in ("1", "L", "P") and not image.mode.startswith("I")) or stored in ("L;2", "L;4"):
        raise ValueError(f"its pixels are {stored or image.mode}: write class numbers as a palette or 8-bit grey image")
    values = np.asarray(image)
    if values.max(initial=0) > IGNORED or values.min(initial=0) < 0:
        raise ValueError(f"its values go up to {values.max()}, and class numbers are at most {IGNORED - 1}")
    return values.astype(np.uint8)
