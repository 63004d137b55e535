"""From the bytes of a file anybody may have written to upright 8-bit RGB, or a refusal with its reason."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from ssl_backbones.data.channels import EVERYDAY, MOST, SUFFIXES, check_pixels, read_channels
from ssl_backbones.data.formats import WAYS_OUT, formats, kind_of_box
from ssl_backbones.data.images import ImageSourceError, UnreadableImageError
from ssl_backbones.data.shortage import require_resources
from ssl_backbones.data.upright import TURNS, made_upright, turn_of
from ssl_backbones.refusal import reason
from ssl_backbones.views.reduction import LARGE, ReducedImage, chosen_reduction

PHOTOMETRIC, BITS_PER_SAMPLE, WHITE_IS_ZERO = 262, 258, 0
WHITE = 65535
"""The value of white in 16 bits."""
MAX_PIXELS = 89_478_485
"""Pixels of an image up to which it is decoded, where nobody allows more: a quarter of a GB as RGB."""


@dataclass(frozen=True)
class DecodePolicy:
    """The limits of decoding, the colour behind transparent pixels, and the channels that are kept."""

    max_pixels: int = MAX_PIXELS
    """Pixels of an image at most."""
    background: tuple[int, int, int] = (255, 255, 255)
    """The colour behind transparent pixels."""
    channels: int = 0
    """Channels of images that keep all of theirs, and all bits; 0 for RGB of 8 bits."""
    depth: str = ""
    """The depth that such images have to have, as `views.channel_image` names it; empty for any."""
    everyday: bool = False
    """Look for such images in PNG, JPEG, WebP and BMP too, where no file of the other formats lies."""

    def __post_init__(self) -> None:
        """Raise ValueError for limits or a background out of range."""
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels is {self.max_pixels}, and has to be at least 1")
        if len(self.background) != 3 or not all(0 <= value <= 255 for value in self.background):
            raise ValueError(f"background is {self.background}, and has to be three values from 0 to 255")
        if not 0 <= self.channels <= MOST:
            raise ValueError(f"channels are {self.channels}, and have to be from 1 to {MOST}, or 0 for RGB of 8 bits")

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the names of files that are looked for; none for all that can be read."""
        return () if not self.channels else SUFFIXES + EVERYDAY if self.everyday else SUFFIXES

    @property
    def seen(self) -> int:
        """Channels that a network is shown."""
        return self.channels or 3


USUAL_POLICY = DecodePolicy()


def decode(image: bytes | Path, name: str, policy: DecodePolicy = USUAL_POLICY) -> Image.Image:
    """The image, or the first frame of several, as upright RGB; UnreadableImageError says what is wrong with `name`.

    Of a policy that keeps channels, a ChannelImage; ImageSourceError where what reads it is not installed, and
    ShortageError where the process lacks files.
    """
    try:
        with without_pillows_warnings():
            if isinstance(image, Path):
                with image.open("rb") as file:
                    return decode_file(file, policy)
            return decode_file(io.BytesIO(image), policy)
    except (MemoryError, ImageSourceError):
        raise
    # Pillow answers a broken file with OSError, SyntaxError, ValueError, struct.error and more: all mean the same.
    except Exception as error:
        require_resources(error, name)
        raise UnreadableImageError(f"{name!r} cannot be read: {reason(error)}") from error


def decode_file(file: BinaryIO, policy: DecodePolicy) -> Image.Image:
    """The image as upright RGB, with nothing of the file attached; raises whatever Pillow raises.

    With the policy's channels, where it keeps them.
    """
    start = file.read(12)
    if not start:
        raise ValueError("it is empty")
    file.seek(0)
    if policy.channels:
        return read_channels(file, policy.channels, policy.depth, policy.max_pixels)
    try:
        image = Image.open(file, formats=formats())
    except UnidentifiedImageError as error:
        raise ValueError(not_known(start)) from error
    with image:
        check_pixels((image.height, image.width), policy.max_pixels)
        by, sides = divisor_of(image), image.size
        if by > 1:
            image.draft(None, (image.width // by, image.height // by))
            by = round(max(sides) / max(image.size))  # Pillow may decline
        image.load()
        turn = turn_of(image)
        upright = made_upright(rgb(image, policy), turn)
        return upright if by == 1 else reduced(upright, by, turned(sides, turn), turn)


def divisor_of(image: Image.Image) -> int:
    """The divisor by which the sides of an opened image are to be decoded: what is asked for, of a large JPEG."""
    if not isinstance(image, JpegImageFile) or image.width * image.height < LARGE:
        return 1
    return chosen_reduction()(*turned(image.size, turn_of(image)))


def turned(size: tuple[int, int], turn: int) -> tuple[int, int]:
    """Width and height of an image once it is upright."""
    width, height = size
    return (height, width) if TURNS[turn][0] else (width, height)


def reduced(pixels: Image.Image, by: int, whole: tuple[int, int], turn: int) -> ReducedImage:
    """Upright pixels, each for `by` x `by` of an image whose last column and row may have been too few for one."""
    lacking = (own * by - side for own, side in zip(pixels.size, whole, strict=True))
    left, top = (lack * mirrored for lack, mirrored in zip(lacking, TURNS[turn][1:], strict=True))
    return ReducedImage(pixels, by, whole, (left, top))


def not_known(start: bytes) -> str:
    """The sentence on a file that begins as none of the formats does."""
    kind = kind_of_box(start)
    if kind is not None and kind not in formats():
        return f"it is {kind}, which is not read here: {WAYS_OUT['.' + kind.lower()]}"
    return f"it is none of {', '.join(formats())}, or broken at its start: it begins with {start[:8]!r}"


def rgb(image: Image.Image, policy: DecodePolicy) -> Image.Image:
    """The pixels of a loaded image of any mode as a plain RGB image."""
    if image.mode == "F":
        raise ValueError("its pixels are floats, which have no set white: convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
        pixels = Image.fromarray(eight_bits(image)).convert("RGB")
    elif image.has_transparency_data:
        pixels = over_background(image, policy.background)
    elif image.mode == "RGB" and not image.readonly:  # which a file that is mapped into memory is
        pixels = without_copy(image)
    else:
        pixels = image.convert("RGB")
    pixels.info = {}
    return pixels


def without_copy(image: Image.Image) -> Image.Image:
    """A plain image with the pixels of one that is loaded, and with nothing else of it."""
    plain = Image.Image()
    plain._mode, plain._size, plain.im = image.mode, image.size, image.im
    return plain


def over_background(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """The image laid over a colour."""
    alpha = image.convert("RGBA")
    ground = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(ground, alpha).convert("RGB")


def eight_bits(image: Image.Image) -> np.ndarray:
    """The grey values (H, W) of an integer image of up to 16 bits, scaled to uint8; Pillow's own convert clips them."""
    values, white = grey_values(image)
    return ((values * 255 + white // 2) // white).astype(np.uint8)


def grey_values(image: Image.Image) -> tuple[np.ndarray, int]:
    """The grey values (H, W), int64, of an integer image of up to 16 bits, and that of white; ValueError for others."""
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    white = WHITE
    if image.format == "TIFF":
        bits = image.tag_v2.get(BITS_PER_SAMPLE, (16,))[0]  # type: ignore[attr-defined]
        white = 2 ** min(bits, 16) - 1
        if image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # type: ignore[attr-defined]
            values = white - values
    if low < 0 or high > white:
        raise ValueError(f"its pixels go from {low} to {high}, outside of 16 bits: convert it to 8 or 16 bits")
    return values, white


def brightest(image: bytes, policy: DecodePolicy = USUAL_POLICY) -> int:
    """The brightest value of a grey image of 16 bits; 0 of any other, and of one that cannot be read."""
    try:
        with without_pillows_warnings(), Image.open(io.BytesIO(image), formats=formats()) as opened:
            check_pixels((opened.height, opened.width), policy.max_pixels)
            values, white = grey_values(opened) if opened.mode.startswith("I") else (np.zeros(1), 0)
    except MemoryError:
        raise
    # as in `decode`, which names such a file when its turn comes
    except Exception:
        return 0
    return int(values.max()) if white == WHITE else 0


_muting = threading.Lock()
_muters = 0
_muted = warnings.catch_warnings()
_limit = Image.MAX_IMAGE_PIXELS


@contextmanager
def without_pillows_warnings() -> Iterator[None]:
    """Silence for what Pillow has to say on odd files, as long as any thread decodes; its limit of pixels is ours.

    `warnings.catch_warnings` alone would let two threads restore one another's filters in the wrong order.
    """
    global _muters, _muted, _limit
    with _muting:
        if _muters == 0:
            _muted = warnings.catch_warnings()
            _muted.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _muters += 1
    try:
        yield
    finally:
        with _muting:
            _muters -= 1
            if _muters == 0:
                _muted.__exit__(None, None, None)
                Image.MAX_IMAGE_PIXELS = _limit
