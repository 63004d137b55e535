"""DICOM of one channel is seen in its own window; what has none, and a sign, is left out in a sentence."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_backbones.data import DecodePolicy, ImageSourceError, UnreadableImageError, open_images
from ssl_backbones.views.channel_image import ChannelImage

pydicom = pytest.importorskip("pydicom", reason="pip install 'ssl-backbones[dicom]'")
ONE = DecodePolicy(channels=1)
PLAIN, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
STORED = np.array([[0, 1000, 2047], [2048, 3000, 4095]])
"""Values of 12 bits."""


def dicom(path: Path, values: np.ndarray = STORED, signed: bool = False, syntax: str = PLAIN, **more: Any) -> Path:
    """A DICOM file of values of 12 bits."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = values.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, int(signed)
    data.PixelData = values.astype("<i2" if signed else "<u2").tobytes()
    for name, value in more.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def seen(path: Path) -> np.ndarray:
    """The values (H, W) of the file, as an image of one channel."""
    (image,) = open_images(path.parent, ONE)
    assert isinstance(image, ChannelImage)
    assert image.depth == "16 bits"
    return image.values[..., 0]


WINDOWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "": lambda values: (values - 39.5) / 399 + 0.5,
    "LINEAR": lambda values: (values - 39.5) / 399 + 0.5,
    "LINEAR_EXACT": lambda values: (values - 40) / 400 + 0.5,
    "SIGMOID": lambda values: 1 / (1 + np.exp(-4 * (values - 40) / 400)),
}
"""The windows of the standard (PS3.3, C.11.2.1.2.1 and C.11.2.1.3) around 40 and 400 wide, from 0 to 1."""


@pytest.mark.parametrize("function", WINDOWS)
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(("signed", "slope", "intercept"), [(False, None, None), (True, 1, 0), (False, 2, -1024)])
def test_a_window_is_that_of_the_standard(
    signed: bool, slope: int | None, intercept: int | None, inverted: bool, function: str, tmp_path: Path
) -> None:
    values = STORED - 2048 if signed else STORED
    more: dict[str, Any] = {"WindowCenter": [40, 300], "WindowWidth": [400, 2000]}
    more |= {} if slope is None else {"RescaleSlope": slope, "RescaleIntercept": intercept}
    more |= {"PhotometricInterpretation": "MONOCHROME1"} if inverted else {}
    more |= {"VOILUTFunction": function} if function else {}
    found = seen(dicom(tmp_path / "a.dcm", values, signed, **more))
    shown = WINDOWS[function](values * (slope or 1) + (intercept or 0))
    expected = (shown.clip(0, 1) * 65535).round().astype(np.uint16)
    if inverted:
        expected = 65535 - expected
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert len(np.unique(found)) > 1


def test_without_a_window_the_bits_tell_white(tmp_path: Path) -> None:
    found = seen(dicom(tmp_path / "a.dcm"))
    assert np.array_equal(found, (STORED / 4095 * 65535).round())


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a sign without a window": ({"signed": True}, "have a sign and it names no window, so that none of them is white"),
    "frames": ({"NumberOfFrames": 2, "values": np.stack([STORED] * 2)}, "2 frames of MONOCHROME2"),
    "colours": ({"PhotometricInterpretation": "RGB"}, "1 frames of RGB"),
    "a slope of 0": (
        {"WindowCenter": 40, "WindowWidth": 400, "RescaleSlope": 0, "RescaleIntercept": 3},
        "its window goes from 3 to 3, so that no value differs from another: write a RescaleSlope other than 0",
    ),
    "deflation": ({"syntax": DEFLATED}, "it is DICOM deflated as a whole, whose size nobody knows beforehand"),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_has_no_white_is_named_in_a_sentence(fault: str, tmp_path: Path) -> None:
    how, sentence = BAD[fault]
    dicom(tmp_path / "a.dcm")
    dicom(tmp_path / "b.dcm", **how)
    images = open_images(tmp_path, ONE)
    with pytest.raises(UnreadableImageError, match=sentence) as refused:
        images[1]
    assert "\n" not in str(refused.value)


@pytest.mark.filterwarnings("ignore:Expected explicit VR")
def test_nothing_is_inflated_whatever_form_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meta information as the standard does not write it, and pydicom reads it: without the kinds of its values."""
    named = struct.pack("<HHI", 2, 0x10, len(DEFLATED)) + DEFLATED.encode()
    dicom(tmp_path / "a.dcm")
    (tmp_path / "b.dcm").write_bytes(bytes(128) + b"DICM" + named + zlib.compress(bytes(range(256)), wbits=-15))
    inflated: list[bytes] = []
    monkeypatch.setattr(zlib, "decompress", lambda content, bits: inflated.append(content) or b"")
    pydicom.dcmread(tmp_path / "b.dcm")
    assert len(inflated) == 1
    images = open_images(tmp_path, ONE)
    with pytest.raises(UnreadableImageError, match="deflated as a whole"):
        images[1]
    assert len(inflated) == 1


def test_torn_and_too_large_files_are_left_out(tmp_path: Path) -> None:
    content = dicom(tmp_path / "a.dcm").read_bytes()
    (tmp_path / "b.dcm").write_bytes(content[:-5])
    (tmp_path / "c.dcm").write_bytes(content[:140])
    images = open_images(tmp_path, ONE)
    for at in (1, 2):
        with pytest.raises(UnreadableImageError, match="cannot be read"):
            images[at]
    for policy, sentence in (
        (DecodePolicy(channels=1, max_pixels=5), "allow them with --max_pixels 6"),
        (DecodePolicy(channels=2), "has 1 channels, and 2 are asked for"),
    ):
        with pytest.raises(ImageSourceError, match=f"none of the first 3 images can be read: .+a.dcm.+{sentence}"):
            open_images(tmp_path, policy)


def test_without_pydicom_the_way_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dicom(tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageSourceError, match=r"pip install 'ssl-backbones\[dicom\]'"):
        open_images(tmp_path, ONE)
    with pytest.raises(ImageSourceError, match=r"1 \.dcm \(--in_chans 1 reads them, with pip install"):
        open_images(tmp_path)
