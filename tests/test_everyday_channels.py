"""PNG, JPEG, WebP and BMP with channels of their own, and grey of 16 bits that RGB would leave nearly black."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import tifffile
from channel_images import drawn_values
from conftest import drawn_image
from PIL import Image
from runs import image_folder, tiny
from test_tar import shard

from ssl_backbones.data import DecodePolicy, ImageSourceError, UnreadableImageError, open_images, validation_of
from ssl_backbones.data.decode import decode
from ssl_backbones.data.opening import depth_sentence
from ssl_backbones.data.source import kept_out
from ssl_backbones.data.survey import survey
from ssl_backbones.data.upright import ORIENTATION, UPRIGHT
from ssl_backbones.methods import BYOLConfig
from ssl_backbones.train.pretrain import open_data
from ssl_backbones.views.channel_image import ChannelImage

MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1}
"""Channels of each mode."""
KINDS = [("PNG", mode) for mode in MODES]
KINDS += [("JPEG", "L"), ("JPEG", "RGB"), ("WEBP", "RGB"), ("WEBP", "RGBA"), ("BMP", "L"), ("BMP", "RGB")]


def drawn(mode: str, brightest: int = 65535) -> Image.Image:
    """An image of 20 x 24 pixels and of a mode; of 16 bits, up to the brightest value."""
    if mode != "I;16":
        return Image.fromarray(drawn_values(0, 24, 20, MODES[mode], np.dtype(np.uint8)).squeeze(), mode)
    values = drawn_values(0, 24, 20, 1)[..., 0].astype(np.float64)
    return Image.fromarray((values / values.max() * brightest).astype(np.uint16))


def encoded(image: Image.Image, format: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **how)
    return file.getvalue()


@pytest.mark.parametrize(("format", "mode"), KINDS)
def test_every_value_of_every_channel_comes_back(format: str, mode: str) -> None:
    image = drawn(mode)
    content = encoded(image, format, **({"lossless": True, "exact": True} if format == "WEBP" else {}))
    read = decode(content, "x", DecodePolicy(channels=MODES[mode]))
    assert isinstance(read, ChannelImage)
    expected = np.asarray(Image.open(io.BytesIO(content))).reshape(24, 20, -1)
    assert np.array_equal(read.values, expected)
    assert format == "JPEG" or np.array_equal(expected.squeeze(), np.asarray(image))
    assert read.depth == ("16 bits" if mode == "I;16" else "8 bits")


@pytest.mark.parametrize("mode", ["I;16", "RGB"])
@pytest.mark.parametrize("turn", UPRIGHT)
def test_they_are_upright(turn: int, mode: str) -> None:
    image, exif = drawn(mode), Image.Exif()
    exif[ORIENTATION] = turn
    read = decode(encoded(image, exif=exif), "x", DecodePolicy(channels=MODES[mode]))
    assert isinstance(read, ChannelImage)
    assert np.array_equal(read.values.squeeze(), np.asarray(image.transpose(UPRIGHT[turn])))


ONE = DecodePolicy(channels=1)
REFUSED = {
    "colours of 16 bits": (hostile.sixteen_bits_rgb(), DecodePolicy(channels=3), "colours of 16 bits.*TIFF or .npy"),
    "palette": (hostile.palette(), DecodePolicy(channels=3), "of mode 'P', and L, LA, RGB, RGBA, I;16 are read"),
    "CMYK": (hostile.cmyk("JPEG"), DecodePolicy(channels=4), "of mode 'CMYK'"),
    "black and white": (encoded(drawn("L").convert("1")), ONE, "of mode '1'"),
    "other channels": (encoded(drawn("RGB")), ONE, "has 3 channels, and 1 are asked for"),
    "other depth": (encoded(drawn("L")), DecodePolicy(channels=1, depth="16 bits"), "of 8 bits, and the first image"),
    "many pixels": (encoded(drawn("I;16")), DecodePolicy(100, channels=1), "20 x 24 pixels are more than the 100"),
    "cut short": (encoded(drawn("I;16"))[:-40], ONE, "x"),
    "of another format": (b"GIF89a" + bytes(30), ONE, "TIFF, .npy, DICOM, PNG, JPEG, WEBP, BMP are read"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_none_is_refused_in_a_sentence(fault: str) -> None:
    content, policy, sentence = REFUSED[fault]
    with pytest.raises(UnreadableImageError, match=sentence) as caught:
        decode(content, "x", policy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "bmp"])
def test_they_are_looked_for_where_no_other_file_lies(suffix: str, tmp_path: Path) -> None:
    for name in ("train/a/0", "train/b/1", "val/a/2", "val/b/3"):
        path = tmp_path / f"{name}.{suffix}"
        path.parent.mkdir(parents=True)
        drawn_image(0, 8, 8).save(path)
    policy = DecodePolicy(channels=3)
    images = open_images(tmp_path, policy)
    assert [*images.keys] == [f"a/0.{suffix}", f"b/1.{suffix}"]
    for beside in (validation_of(tmp_path, images, policy), kept_out(tmp_path, images, policy)):
        assert beside is not None
        assert [*beside.keys] == [f"a/2.{suffix}", f"b/3.{suffix}"]


@pytest.mark.parametrize("suffix", ["tif", "npy"])
def test_beside_other_files_they_are_previews(suffix: str, tmp_path: Path) -> None:
    """A run that began with those files alone goes on with them."""
    write = tifffile.imwrite if suffix == "tif" else np.save
    for name in ("a/0", "b/1"):
        (tmp_path / name).parent.mkdir()
        write(tmp_path / f"{name}.{suffix}", drawn_values(0, 8, 8, 1)[..., 0])
    alone = open_images(tmp_path, ONE).fingerprint
    drawn("L").save(tmp_path / "a" / "0.png")
    images = open_images(tmp_path, ONE)
    assert [*images.keys] == [f"a/0.{suffix}", f"b/1.{suffix}"]
    assert images.fingerprint == alone


def test_shards_of_them_are_read_and_a_shard_of_both_is_not_taken_for_one(tmp_path: Path) -> None:
    png, npy = encoded(drawn("I;16")), io.BytesIO()
    np.save(npy, np.asarray(drawn("I;16")))
    alone = shard(tmp_path / "x.tar", [("0.png", png), ("0.cls", b"1"), ("1.png", png)])
    images = open_images(alone, ONE)
    assert [*images.keys] == ["x.tar/0.png", "x.tar/1.png"]
    assert np.array_equal(images[1].values[..., 0], np.asarray(drawn("I;16")))
    mixed = shard(tmp_path / "y.tar", [("0.png", png), ("1.npy", npy.getvalue())])
    with pytest.raises(ImageSourceError, match=r"an entry without an image, '0\.png'"):
        open_images(mixed, ONE)


def test_a_folder_of_nothing_names_all_that_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ImageSourceError, match=r"files ending in \.tif, .*\.npy, .*\.png, .* are looked for"):
        open_images(tmp_path, ONE)


DEPTHS: dict[str, tuple[Any, str]] = {
    "PNG of 12 bits in 16": (
        lambda at: drawn("I;16", 4095).save(at / "a.png"),
        "4,095 of 65,535, of which RGB keeps 17",
    ),
    "PNG of 700 levels": (lambda at: drawn("I;16", 700).save(at / "a.png"), "700 of 65,535, of which RGB keeps 4"),
    "TIFF": (lambda at: tifffile.imwrite(at / "a.tif", np.asarray(drawn("I;16", 4095))), "4,095 of 65,535"),
    "PNG of all levels": (lambda at: drawn("I;16").save(at / "a.png"), ""),
    "PNG of 8 bits": (lambda at: drawn("L").save(at / "a.png"), ""),
    "a broken file": (lambda at: (at / "a.png").write_bytes(encoded(drawn("I;16", 700))[:60]), ""),
}


@pytest.mark.parametrize("case", DEPTHS)
def test_the_depth_of_dark_images_is_told(case: str, tmp_path: Path) -> None:
    save, sentence = DEPTHS[case]
    save(tmp_path)
    told = depth_sentence(open_images(tmp_path))
    assert sentence in told
    assert bool(told) == bool(sentence)
    if told:
        assert told.endswith("--in_chans 1 --views channels keeps them all.")
        assert told in survey(open_images(tmp_path)).sentences()
        assert not depth_sentence(open_images(tmp_path, ONE))


def test_a_run_tells_it_as_it_opens_its_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = image_folder(tmp_path / "data", 4)
    drawn("I;16", 4095).save(data / "0.png")
    open_data(tiny(BYOLConfig, data, tmp_path / "out"))
    assert "of which RGB keeps 17 levels: --in_chans 1 --views channels" in capsys.readouterr().out
