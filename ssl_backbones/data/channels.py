"""Images with channels of their own: TIFF and .npy of 1 to 16 channels, of 8 or 16 bits or of floats in [0, 1]."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ssl_backbones.data.images import ImageSourceError
from ssl_backbones.views.channel_image import ChannelImage

MOST = 16
"""Channels of an image."""
SUFFIXES = (".tif", ".tiff", ".npy")
"""Ends of the names of files that may hold such images, in lower case."""
NPY, TIFF = b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
SCALE_FLOATS = "scale them to [0, 1], or save them as uint8 or uint16"
Array = NDArray[np.generic]


def read_channels(file: BinaryIO, channels: int, depth: str, max_pixels: int) -> ChannelImage:
    """The image of a file with so many channels, and of that depth where it is not empty.

    ValueError for what is no such image; ImageSourceError where a TIFF is to be read without tifffile.
    """
    start = file.read(len(NPY))
    file.seek(0)
    if start == NPY:
        values = npy_values(file, channels, max_pixels)
    elif start[:4] in TIFF:
        values = tiff_values(file, max_pixels)
    else:
        raise ValueError(f"with --in_chans, TIFF and .npy are read, and it begins with {start!r}")
    if values.shape[2] != channels:
        raise ValueError(f"it has {values.shape[2]} channels, and {channels} are asked for (--in_chans)")
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
    file.seek(0)
    values: Array = np.load(file, allow_pickle=False)
    values = values.reshape(*shape[:2], -1)
    return values.transpose(1, 2, 0) if first else values


def tiff_values(file: BinaryIO, max_pixels: int) -> Array:
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
        values: Array = np.asarray(series.asarray())
    values = np.moveaxis(values, others[0], -1) if others else values[..., None]
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and values.dtype.kind == "u":
        return np.invert(values)
    return values


def check_pixels(sides: tuple[int, ...], max_pixels: int) -> None:
    """ValueError for an image of more pixels than are allowed."""
    height, width = sides
    if height * width > max_pixels:
        raise ValueError(
            f"{width} x {height} pixels are more than the {max_pixels} allowed: allow them with --max_pixels "
            f"{height * width}, or scale it down"
        )
