"""Makers of odd image files, as people's folders hold them: each returns the bytes of one file."""

from __future__ import annotations

import errno
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

RED, GREEN, BLUE, WHITE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (128, 128, 128)


NEAR_LOSSLESS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}


def leave(path: Path, content: bytes) -> None:
    """Write a file of any name; skip the test where the file system takes none that is not UTF-8, as that of macOS."""
    try:
        path.write_bytes(content)
    except OSError as error:
        if error.errno != errno.EILSEQ:
            raise
        pytest.skip("this file system takes no name that is not UTF-8")


def quarters(width: int = 48, height: int = 32) -> np.ndarray:
    """Pixels (H, W, 3) of four plain quarters: red, green, blue and grey, as one reads."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[: height // 2, width // 2 :] = GREEN
    pixels[height // 2 :, : width // 2] = BLUE
    pixels[height // 2 :, width // 2 :] = GREY
    return pixels


def ramp(width: int = 48, height: int = 32) -> np.ndarray:
    """Grey values (H, W) in uint8 from black at the left to white at the right."""
    return np.tile(np.linspace(0, 255, width).round().astype(np.uint8), (height, 1))


def noise(width: int = 48, height: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(pixels: np.ndarray | Image.Image, format: str = "PNG", **options: Any) -> bytes:
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def jpeg(width: int = 48, height: int = 32, seed: int = 0) -> bytes:
    """An ordinary JPEG, different for each seed: a few blurred blobs."""
    blobs = Image.fromarray(noise(6, 4, seed)).resize((width, height), Image.Resampling.BICUBIC)
    return encode(blobs, "JPEG", quality=90)


def cmyk(format: str) -> bytes:
    """The quarters as CMYK: in a JPEG with Adobe's marker and inverted, as Photoshop does, in a TIFF as they are."""
    return encode(Image.fromarray(quarters()).convert("CMYK"), format, **({"quality": 95} if format == "JPEG" else {}))


def palette() -> bytes:
    return encode(Image.fromarray(quarters()).quantize(8))


def palette_transparent(format: str = "PNG") -> bytes:
    """The quarters in a palette; the red quarter is transparent."""
    image = Image.fromarray(quarters()).quantize(8)
    return encode(image, format, transparency=image.getpixel((0, 0)))


def palette_translucent() -> bytes:
    """The quarters in a palette whose every colour is half transparent."""
    return encode(Image.fromarray(quarters()).quantize(8), transparency=bytes([128] * 8))


def rgba(alpha: int, format: str = "PNG") -> bytes:
    """The quarters, all of one alpha."""
    image = Image.fromarray(quarters())
    image.putalpha(alpha)
    return encode(image, format, **({"lossless": True} if format == "WEBP" else {}))


def grey_alpha(alpha: int) -> bytes:
    image = Image.fromarray(ramp())
    image.putalpha(alpha)
    return encode(image)


def colour_key() -> bytes:
    """The quarters in a PNG that declares red to be transparent."""
    return encode(quarters(), transparency=RED)


def sixteen_bits(format: str) -> bytes:
    """The ramp in 16 bits: PNG, TIFF or PPM."""
    values = ramp().astype(np.uint16) * 257
    if format == "PPM":
        return b"P5 %d %d 65535\n" % values.shape[::-1] + values.astype(">u2").tobytes()
    return encode(Image.fromarray(values), format)


def sixteen_bits_rgb(key: tuple[int, int, int] | None = None) -> bytes:
    """The quarters in a 16-bit RGB PNG, which Pillow cannot write; a `key` is declared transparent."""
    height, width, _ = quarters().shape
    rows = (quarters().astype(">u2") * 257).reshape(height, -1)
    scanlines = b"".join(b"\0" + row.tobytes() for row in rows)
    transparency = [(b"tRNS", struct.pack(">HHH", *(value * 257 for value in key)))] if key else []
    return png(
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        *transparency,
        (b"IDAT", zlib.compress(scanlines)),
    )


def white_is_zero(format_bits: int) -> bytes:
    """The ramp in a TIFF of 8 or 16 bits that stores white as 0."""
    values = 255 - ramp() if format_bits == 8 else (255 - ramp()).astype(np.uint16) * 257
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    plain = encode(values, "TIFF")
    entry = struct.pack("<HHI", 262, 3, 1)
    assert entry + b"\1" in plain
    return plain.replace(entry + b"\1", entry + b"\0")


def float_tiff() -> bytes:
    return encode(Image.fromarray(ramp().astype(np.float32) / 255), "TIFF")


def wide_integers() -> bytes:
    """A TIFF of 32-bit integers with values beyond 16 bits."""
    return encode(Image.fromarray(ramp().astype(np.int32) * 100_000), "TIFF")


def turned(orientation: int, format: str = "JPEG") -> bytes:
    """The quarters stored as a camera held this way stores them, with the EXIF note that undoes it."""
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # PIL.Image.Transpose, inverted
    image = Image.fromarray(quarters())
    stored = image if undo is None else image.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(stored, format, exif=exif, **NEAR_LOSSLESS.get(format, {}))


def broken_exif() -> bytes:
    return encode(quarters(), "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xff" * 40)


def animated(format: str) -> bytes:
    """Two frames, the quarters and then white."""
    frames = [Image.fromarray(quarters()), Image.new("RGB", (48, 32), WHITE)]
    lossless = {"lossless": True} if format == "WEBP" else {}
    return encode(frames[0], format, save_all=True, append_images=frames[1:], **lossless)


def multi_picture() -> bytes:
    """An image as some phones write it, as .jpg: an MPO with a second image behind the first."""
    return encode(
        quarters(), "MPO", save_all=True, append_images=[Image.new("RGB", (48, 32), WHITE)], quality=95, subsampling=0
    )


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of the given chunks, checksums and end included."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in (*chunks, (b"IEND", b"")):
        parts.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(parts)


def bomb(width: int, height: int) -> bytes:
    """A small PNG that claims to be large, and whose data do unpack to some of it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return png((b"IHDR", header), (b"IDAT", zlib.compress(bytes(20_000_000), 9)))


def webp_bomb(width: int = 16383, height: int = 16383) -> bytes:
    """A WebP whose canvas is declared far larger than its only frame."""
    small = encode(Image.new("RGB", (8, 8)), "WEBP", lossless=True)
    frame = small[12:]
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    animation = struct.pack("<II", 0, 0)[:6]
    box = bytes(6) + (7).to_bytes(3, "little") * 2 + (100).to_bytes(3, "little") + b"\0"
    body = b"WEBP" + riff(b"VP8X", b"\x02\0\0\0" + canvas) + riff(b"ANIM", animation) + riff(b"ANMF", box + frame)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def flipped(file: bytes, at: int) -> bytes:
    """The file with one byte inverted."""
    return file[:at] + bytes([file[at] ^ 0xFF]) + file[at + 1 :]


def fits() -> bytes:
    cards = ["SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    2",
             "NAXIS1  =                    8", "NAXIS2  =                    8", "END"]  # fmt: skip
    return "".join(card.ljust(80) for card in cards).ljust(2880).encode() + bytes(2880)


def jpeg2000() -> bytes:
    return encode(quarters(), "JPEG2000")


UNREADABLE: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "html": lambda: b"<!DOCTYP html><html><body>404 Not Found</body></html>",
    "truncated jpeg": lambda: encode(noise(), "JPEG")[:-500],
    "truncated png": lambda: encode(noise())[:-500],
    "flipped png": lambda: flipped(encode(noise()), 400),
    "truncated webp": lambda: encode(noise(), "WEBP", lossless=True)[:-500],
    "truncated gif": lambda: encode(noise(), "GIF")[:-500],
    "truncated bmp": lambda: encode(noise(), "BMP")[:-500],
    "truncated tiff": lambda: encode(noise(), "TIFF")[:-2500],
    "truncated ppm": lambda: encode(noise(), "PPM")[:-500],
    "only a header": lambda: jpeg()[:20],
    "float tiff": float_tiff,
    "wide integers": wide_integers,
    "bomb of 100 million": lambda: bomb(10_000, 10_000),
    "bomb of 400 million": lambda: bomb(20_000, 20_000),
    "webp bomb": webp_bomb,
    "fits": fits,
    "pdf": lambda: encode(quarters(), "PDF"),
    "eps": lambda: encode(quarters(), "EPS"),
    "ico": lambda: encode(quarters(32, 32), "ICO"),
    "jpeg 2000": jpeg2000,
    "tga": lambda: encode(quarters(), "TGA"),
}
"""Files that must be refused, by what is wrong with them; all of them to be named .jpg."""
