"""Images with channels of their own: TIFF and .npy of 1 to 16 channels, of 8 or 16 bits or of floats in [0, 1].

And DICOM of one channel, in the window that each file names, and what PNG, JPEG, WebP and BMP have of channels.
"""

from __future__ import annotations

import math
import os
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ssl_backbones.data.images import ImageSourceError
from ssl_backbones.data.upright import made_upright, turn_of
from ssl_backbones.views.channel_image import ChannelImage

MOST = 16
"""Channels of an image."""
SUFFIXES = (".tif", ".tiff", ".npy", ".dcm", ".dicom")
"""Ends of the names of files that may hold such images, in lower case."""
EVERYDAY = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""Ends of the names of files that are such images where no other file is: beside others they may be their previews."""
PILLOW = ("PNG", "JPEG", "WEBP", "BMP")
MODES = {"L": np.uint8, "LA": np.uint8, "RGB": np.uint8, "RGBA": np.uint8, "I;16": np.uint16}
"""The values of Pillow's modes that are read as they are."""
DICOM, BEFORE_DICOM = b"DICM", 128
FAR = 1e12
"""A value beyond every window."""
NPY, TIFF = b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
SCALE_FLOATS = "scale them to [0, 1], or save them as uint8 or uint16"
Array = NDArray[np.generic]


def read_channels(file: BinaryIO, channels: int, depth: str, max_pixels: int) -> ChannelImage:
    """The image of a file with so many channels, and of that depth where it is not empty.

    ValueError for what is no such image; ImageSourceError where a TIFF is to be read without tifffile.
    """
    start = file.read(BEFORE_DICOM + len(DICOM))
    file.seek(0)
    if start.startswith(NPY):
        values = npy_values(file, channels, max_pixels)
    elif start[:4] in TIFF:
        values = tiff_values(file, channels, max_pixels)
    elif start[BEFORE_DICOM:] == DICOM:
        values = dicom_values(file, max_pixels)
    else:
        values = pillow_values(file, max_pixels)
    check_channels(values.shape[2], channels)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    found = depth_of(values)
    if depth not in ("", found):
        raise ValueError(f"it is of {found}, and the first image is of {depth}: convert one of the two")
    return ChannelImage(values.astype(np.float32) if found == "floats" else values, found)


def depth_of(values: Array) -> str:
    """The depth of values (H, W, C): by their type, and floats by being in [0, 1]; ValueError for all others."""
    if values.dtype in (np.uint8, np.uint16):
        return f"{8 * values.dtype.itemsize} bits"
    if values.dtype.kind != "f":
        raise ValueError(f"it is of {values.dtype}, and 8 or 16 bits without a sign, or floats in [0, 1], are read")
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise ValueError(f"{count} of its {values.size} values are NaN or infinite: put numbers in their place")
    low, high = values.min(), values.max()
    if low < 0 or high > 1:
        raise ValueError(f"its floats go from {low:g} to {high:g}, outside of [0, 1]: {SCALE_FLOATS}")
    return "floats"


def npy_values(file: BinaryIO, channels: int, max_pixels: int) -> Array:
    """The values (H, W, C) of a .npy of (H, W), (H, W, C), or (C, H, W) where its first side alone is `channels`.

    Its header is read first: nothing is unpickled, and no memory is taken for more pixels than are allowed.
    """
    version = npy.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"its format is {'.'.join(map(str, version))}, and 1.0 and 2.0 are read: save it anew")
    shape, _, dtype = HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which may run anything and are not read: save numbers")
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"it has the shape {shape}: give (H, W, C), or (H, W) of one channel")
    first = len(shape) == 3 and shape[0] == channels != shape[2]
    check_pixels(shape[1:] if first else shape[:2], max_pixels)
    check_channels(shape[0] if first else math.prod(shape[2:]), channels)
    size = math.prod(shape) * dtype.itemsize
    if file.seek(0, os.SEEK_END) < size:
        raise ValueError(f"its header tells {size} bytes of numbers, which it does not have: it is cut short")
    file.seek(0)
    values: Array = np.load(file, allow_pickle=False)
    values = values.reshape(*shape[:2], -1)
    return values.transpose(1, 2, 0) if first else values


def tiff_values(file: BinaryIO, channels: int, max_pixels: int) -> Array:
    """The values (H, W, C) of the first image of a TIFF, its channels side by side, in planes, or in pages."""
    try:
        import tifffile
    except ImportError as error:
        raise ImageSourceError(
            "TIFF with channels of its own is read by tifffile, which is not installed: pip install "
            "'ssl-backbones[tiff]', or save the images as .npy"
        ) from error
    with tifffile.TiffFile(file) as tiff:
        series = tiff.series[0]
        page = series.keyframe
        axes, shape = series.axes, series.shape
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            raise ValueError("its levels are numbers of a palette: save it without")
        others = [at for at, axis in enumerate(axes) if axis not in "YX"]
        if len(others) > 1 or not {"Y", "X"} <= set(axes):
            raise ValueError(f"it has the shape {tuple(shape)}: give one image of height, width and channels")
        bits = page.bitspersample
        if bits not in (8, 16, 32, 64):
            raise ValueError(f"it is of {bits} bits, and 8 or 16 bits are read: scale it to 16")
        check_pixels((shape[axes.index("Y")], shape[axes.index("X")]), max_pixels)
        check_channels(shape[others[0]] if others else 1, channels)
        values: Array = np.asarray(series.asarray())
    values = np.moveaxis(values, others[0], -1) if others else values[..., None]
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and values.dtype.kind == "u":
        return np.invert(values)
    return values


def pillow_values(file: BinaryIO, max_pixels: int) -> Array:
    """The values (H, W, C) of a PNG, JPEG, WebP or BMP, upright: grey, RGB or either with alpha, or grey of 16 bits.

    ValueError for another file or mode, and for colours of 16 bits, which Pillow cuts to 8.
    """
    try:
        image = Image.open(file, formats=PILLOW)
    except UnidentifiedImageError as error:
        file.seek(0)
        raise ValueError(
            f"with --in_chans, TIFF, .npy, DICOM, {', '.join(PILLOW)} are read, and it begins with {file.read(8)!r}"
        ) from error
    with image:
        check_pixels((image.height, image.width), max_pixels)
        if image.mode not in MODES:
            raise ValueError(
                f"it is of mode {image.mode!r}, and {', '.join(MODES)} are read: convert it to one of them"
            )
        if image.format == "PNG" and image.mode != "I;16" and "16" in str(image.tile[0].args):
            raise ValueError("it has colours of 16 bits, of which 8 would be left: save it as TIFF or .npy")
        image.load()
        values = np.asarray(made_upright(image, turn_of(image)), MODES[image.mode])
    return values if values.ndim == 3 else values[..., None]


def check_channels(found: int, asked: int) -> None:
    """ValueError for an image of other channels than are asked for."""
    if found != asked:
        raise ValueError(f"it has {found} channels, and {asked} are asked for (--in_chans)")


def check_pixels(sides: tuple[int, ...], max_pixels: int) -> None:
    """ValueError for an image of more pixels than are allowed."""
    height, width = sides
    if height * width > max_pixels:
        raise ValueError(
            f"{width} x {height} pixels are more than the {max_pixels} allowed: allow them with --max_pixels "
            f"{height * width}, or scale it down"
        )


def dicom_values(file: BinaryIO, max_pixels: int) -> Array:
    """The values (H, W, 1) of a DICOM file in 16 bits: those of its window, or of its bits where it has none.

    ValueError for a file without a window whose values have a sign, for several frames or colours, for a window that
    shows all values alike, and for a deflated file.
    """
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut, apply_windowing
    except ImportError as error:
        raise ImageSourceError(
            "DICOM is read by pydicom, which is not installed: pip install 'ssl-backbones[dicom]'"
        ) from error
    require_plain(file)
    data = pydicom.dcmread(file)
    kind, frames = str(data.PhotometricInterpretation), int(data.get("NumberOfFrames") or 1)
    if kind not in ("MONOCHROME1", "MONOCHROME2") or frames > 1:
        raise ValueError(f"it is DICOM of {frames} frames of {kind}, and one of MONOCHROME1 or 2 is read: save frames")
    check_pixels((int(data.Rows), int(data.Columns)), max_pixels)
    if data.get("WindowCenter") is not None and data.get("WindowWidth") is not None:
        with np.errstate(over="ignore"):  # of a sigmoid far from its window
            black, white = apply_windowing(np.array([-FAR, FAR]), data)
            values = apply_windowing(apply_modality_lut(data.pixel_array, data), data)
        if not 0 < abs(white - black) < np.inf:
            raise ValueError(
                f"its window goes from {black:g} to {white:g}, so that no value differs from another: write a "
                "RescaleSlope other than 0 into it, or save it scaled as .npy"
            )
        values = (values - black) / (white - black)
    elif data.PixelRepresentation == 0:
        values = data.pixel_array / (2**data.BitsStored - 1)
    else:
        raise ValueError(
            "its values have a sign and it names no window, so that none of them is white: write WindowCenter and "
            "WindowWidth into it, or save it scaled as .npy"
        )
    values = 1 - values if kind == "MONOCHROME1" else values
    return np.asarray((values.clip(0, 1) * 65535).round().astype(np.uint16))[..., None]


def require_plain(file: BinaryIO) -> None:
    """ValueError for a DICOM file that is deflated as a whole: it could be inflated to any size before it is known.

    Goes back to the beginning of the file.
    """
    from pydicom.filereader import read_dataset
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    file.seek(BEFORE_DICOM + len(DICOM))
    meta = read_dataset(file, False, True, stop_when=lambda tag, kind, length: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise ValueError("it is DICOM deflated as a whole, whose size nobody knows beforehand: save it without")
    file.seek(0)
