"""Odd images become correct RGB, broken ones an error that names them, and neither a warning."""

from __future__ import annotations

import ctypes
import io
import re
import threading
import warnings
from pathlib import Path

import hostile
import numpy as np
import pytest
from conftest import drawn_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssl_backbones.data import DecodePolicy, UnreadableImageError
from ssl_backbones.data.decode import decode

QUARTERS = hostile.quarters().astype(int)
RAMP = np.repeat(hostile.ramp()[..., None], 3, axis=2).astype(int)


def pixels(file: bytes, **policy) -> np.ndarray:
    image = decode(file, "photo", DecodePolicy(**policy))
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def over(foreground: np.ndarray, alpha: int, background: tuple[int, int, int] = hostile.WHITE) -> np.ndarray:
    """The expected pixels (H, W, 3) of a foreground of one alpha over a colour."""
    return (foreground * alpha + np.array(background) * (255 - alpha)) / 255


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        pytest.param(hostile.encode(hostile.quarters()), QUARTERS, id="rgb"),
        pytest.param(hostile.encode(hostile.ramp()), RAMP, id="grey"),
        pytest.param(hostile.encode(hostile.ramp(), "JPEG", quality=100), RAMP, id="grey jpeg"),
        pytest.param(hostile.encode(hostile.quarters(), "BMP"), QUARTERS, id="bmp"),
        pytest.param(hostile.encode(hostile.quarters(), "TIFF"), QUARTERS, id="tiff"),
        pytest.param(hostile.encode(hostile.quarters(), "PPM"), QUARTERS, id="ppm"),
        pytest.param(hostile.encode(Image.fromarray(hostile.ramp() > 127)), (RAMP > 127) * 255, id="bilevel"),
        pytest.param(hostile.cmyk("JPEG"), QUARTERS, id="cmyk jpeg"),
        pytest.param(hostile.cmyk("TIFF"), QUARTERS, id="cmyk tiff"),
        pytest.param(hostile.palette(), QUARTERS, id="palette"),
        pytest.param(hostile.palette_translucent(), over(QUARTERS, 128), id="palette and alpha"),
        pytest.param(hostile.rgba(255), QUARTERS, id="rgba opaque"),
        pytest.param(hostile.rgba(128), over(QUARTERS, 128), id="rgba"),
        pytest.param(hostile.rgba(0), over(QUARTERS, 0), id="rgba transparent"),
        pytest.param(hostile.rgba(128, "WEBP"), over(QUARTERS, 128), id="rgba webp"),
        pytest.param(hostile.rgba(128, "TIFF"), over(QUARTERS, 128), id="rgba tiff"),
        pytest.param(hostile.grey_alpha(128), over(RAMP, 128), id="grey and alpha"),
        pytest.param(hostile.sixteen_bits("PNG"), RAMP, id="16-bit png"),
        pytest.param(hostile.sixteen_bits("TIFF"), RAMP, id="16-bit tiff"),
        pytest.param(hostile.sixteen_bits("PPM"), RAMP, id="16-bit ppm"),
        pytest.param(hostile.sixteen_bits_rgb(), QUARTERS, id="16-bit rgb"),
        pytest.param(hostile.white_is_zero(8), RAMP, id="white is zero"),
        pytest.param(hostile.white_is_zero(16), RAMP, id="white is zero in 16 bits"),
        pytest.param(hostile.broken_exif(), QUARTERS, id="broken exif"),
        pytest.param(hostile.multi_picture(), QUARTERS, id="multi-picture"),
        pytest.param(hostile.animated("GIF"), QUARTERS, id="gif"),
        pytest.param(hostile.animated("PNG"), QUARTERS, id="apng"),
        pytest.param(hostile.animated("WEBP"), QUARTERS, id="webp"),
        pytest.param(hostile.animated("TIFF"), QUARTERS, id="tiff of two pages"),
    ],
)
def test_what_comes_out_is_what_the_file_means(file, expected):
    assert np.abs(pixels(file) - expected).max() <= 2


@pytest.mark.parametrize("background", [hostile.WHITE, (10, 20, 30)])
@pytest.mark.parametrize(
    "file",
    [
        hostile.palette_transparent(),
        hostile.palette_transparent("GIF"),
        hostile.colour_key(),
        hostile.sixteen_bits_rgb(key=hostile.RED),
    ],
    ids=["png", "gif", "colour key", "16-bit colour key"],
)
def test_a_transparent_colour_shows_the_background(file, background):
    expected = QUARTERS.copy()
    expected[:16, :24] = background
    assert np.array_equal(pixels(file, background=background), expected)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_is_upright(orientation, format):
    assert np.abs(pixels(hostile.turned(orientation, format)) - QUARTERS).max() <= 2


@pytest.mark.parametrize("fault", hostile.UNREADABLE)
def test_a_file_that_cannot_be_read_is_named_with_a_reason(fault, tmp_path):
    file = tmp_path / "image of a\nnewline é.jpg"
    file.write_bytes(hostile.UNREADABLE[fault]())
    for image in (file, file.read_bytes()):
        with pytest.raises(UnreadableImageError, match=r"^'shoes/1\.jpg' cannot be read: \S") as caught:
            decode(image, "shoes/1.jpg")
        assert "\n" not in str(caught.value)
        assert str(caught.value).count("'shoes/1.jpg'") == 1


def test_a_file_that_is_not_there_is_unreadable(tmp_path):
    with pytest.raises(UnreadableImageError, match=r"^'gone' cannot be read: No such file or directory$"):
        decode(tmp_path / "gone.jpg", "gone")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]), st.floats(0, 0.9))
def test_a_truncated_file_is_never_shown_in_part(format, kept):
    file = hostile.encode(hostile.noise(), format, **({"lossless": True} if format == "WEBP" else {}))
    with pytest.raises(UnreadableImageError):
        decode(file[: int(kept * len(file))], "photo")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]), st.data())
def test_damage_gives_an_image_or_our_error_and_nothing_else(format, data):
    file = (
        hostile.turned(6, format)
        if format in ("JPEG", "PNG", "WEBP", "TIFF")
        else hostile.encode(hostile.noise(), format)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        file = hostile.flipped(file, data.draw(st.integers(0, len(file) - 1)))
    try:
        image = decode(file, "photo", DecodePolicy(max_pixels=1_000_000))
    except UnreadableImageError:
        return
    assert image.mode == "RGB"
    assert 0 < image.width * image.height <= 1_000_000


@pytest.mark.parametrize(("width", "height"), [(1, 1), (4000, 1), (1, 4000)])
def test_odd_shapes_are_kept(width, height):
    assert decode(hostile.encode(hostile.quarters(width, height)), "photo").size == (width, height)


def test_the_limit_of_pixels_is_kept_to():
    file = hostile.encode(hostile.quarters(40, 30))
    assert decode(file, "photo", DecodePolicy(max_pixels=1200)).size == (40, 30)
    with pytest.raises(UnreadableImageError, match="40 x 30 pixels are more than the 1199 allowed"):
        decode(file, "photo", DecodePolicy(max_pixels=1199))


def peak_memory(reset: bool = False) -> int:
    """The most memory this process has held since the last reset, in MB."""
    if reset:
        ctypes.CDLL(None).malloc_trim(0)  # what earlier tests freed would be taken before any more is asked for
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory can be reset on Linux only")
@pytest.mark.parametrize("name", ["bomb of 100 million", "bomb of 400 million", "webp bomb"])
def test_a_bomb_is_refused_before_it_takes_memory(name):
    file = hostile.UNREADABLE[name]()
    before = peak_memory(reset=True)
    with pytest.raises(UnreadableImageError, match="pixels"):
        decode(file, "photo")
    assert peak_memory() - before < 50
    decode(hostile.encode(Image.new("RGB", (6000, 6000)), "PPM"), "photo")
    assert peak_memory() - before > 50, "a large image is seen by this test"


def test_nothing_of_the_file_stays_with_the_image(tmp_path):
    file = tmp_path / "photo.jpg"
    file.write_bytes(hostile.turned(6))
    image = decode(file, "photo")
    assert type(image) is Image.Image
    assert image.info == {}
    assert not image.getexif()


@pytest.mark.parametrize("policy", [{"max_pixels": 0}, {"background": (0, 0)}, {"background": (0, 0, 256)}])
def test_a_senseless_policy_is_refused(policy):
    with pytest.raises(ValueError, match="has to be"):
        DecodePolicy(**policy)


def test_threads_leave_the_filters_of_warnings_as_they_were():
    files = [hostile.broken_exif(), hostile.bomb(10_000, 10_000), hostile.palette_translucent()] * 8
    before = list(warnings.filters)
    escaped = []

    def work() -> None:
        for file in files:
            try:
                decode(file, "photo")
            except UnreadableImageError:
                pass
            except Warning as warning:
                escaped.append(warning)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not escaped
    assert list(warnings.filters) == before
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(hostile.bomb(10_000, 10_000)))


@pytest.mark.parametrize("size", [(9500, 9500), (14000, 14000)])
def test_a_large_image_is_refused_with_the_option_that_allows_it(size: tuple[int, int]) -> None:
    before = Image.MAX_IMAGE_PIXELS
    file = io.BytesIO()
    Image.new("1", size).save(file, "PNG")
    pixels = size[0] * size[1]
    with pytest.raises(UnreadableImageError, match=f"allow them with --max_pixels {pixels}, or scale it down"):
        decode(file.getvalue(), "photo")
    if pixels < 10**8:
        assert decode(file.getvalue(), "photo", DecodePolicy(pixels)).size == size
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
def test_an_rgb_image_is_not_copied_to_be_one(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image"
    drawn_image(3, 40, 30).save(path, form)
    with Image.open(path) as file:
        literal = np.asarray(file.convert("RGB"))
    copied: list[str] = []
    convert = Image.Image.convert
    monkeypatch.setattr(Image.Image, "convert", lambda image, *more: copied.append(image.mode) or convert(image, *more))
    found = decode(path.read_bytes(), "image")
    path.unlink()
    assert type(found) is Image.Image
    assert found.info == {}
    assert not copied
    assert np.array_equal(np.asarray(found), literal)
    assert np.array_equal(np.asarray(found.resize((7, 9)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)).shape, (9, 7, 3))
