"""Images of 1 to 16 channels and 16 bits: read whole, shown without a loss of bits, refused in a sentence."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import tifffile
import torch
from channel_images import channel_folder, drawn_values
from conftest import drawn_image
from PIL import Image
from runs import image_folder, tiny
from small_methods import CONFIGS
from test_tar import shard

from ssl_backbones.data import (
    DecodePolicy,
    ImageSourceError,
    UnreadableImageError,
    kept_arrays,
    open_images,
    tar_index,
    validation_of,
)
from ssl_backbones.data.decode import decode
from ssl_backbones.data.source import kept_out
from ssl_backbones.data.statistics import measured
from ssl_backbones.methods import BYOLConfig, MethodConfig
from ssl_backbones.recipes.channels import shown
from ssl_backbones.views import BYOL_VIEWS, CenterCrop, CropFlip, MultiView, Policy, pillow_engine
from ssl_backbones.views.channel_image import ChannelImage, picture
from ssl_backbones.views.normalise import ChannelError

FOUR = DecodePolicy(channels=4)


def tiff(path: Path, values: np.ndarray, **how: Any) -> Path:
    tifffile.imwrite(path, values, **how)
    return path


def saved(path: Path, values: np.ndarray) -> Path:
    np.save(path, values)
    return path


WAYS = {
    "npy": lambda at, values: saved(at / "a.npy", values),
    "npy in planes": lambda at, values: saved(at / "a.npy", values.transpose(2, 0, 1)),
    "npy in the order of Fortran": lambda at, values: saved(at / "a.npy", np.asfortranarray(values)),
    "TIFF": lambda at, values: tiff(at / "a.tif", values, photometric="minisblack", planarconfig="contig"),
    "TIFF in planes": lambda at, values: tiff(
        at / "a.tiff", values.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate"
    ),
    "TIFF in pages": lambda at, values: tiff(at / "a.TIF", values.transpose(2, 0, 1), photometric="minisblack"),
    "TIFF, packed": lambda at, values: tiff(
        at / "a.tif", values, photometric="minisblack", planarconfig="contig", compression="zlib"
    ),
    "TIFF, big-endian": lambda at, values: tiff(
        at / "a.tif", values, photometric="minisblack", planarconfig="contig", byteorder=">"
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 4, 16])
def test_every_value_comes_back(way: str, kind: type, channels: int, tmp_path: Path) -> None:
    values = drawn_values(0, 24, 20, channels, np.dtype(kind))
    WAYS[way](tmp_path, values)
    (image,) = open_images(tmp_path, DecodePolicy(channels=channels))
    assert isinstance(image, ChannelImage)
    assert np.array_equal(image.values, values)
    assert (image.size, image.depth) == ((20, 24), f"{8 * values.dtype.itemsize} bits")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("suffix", ["npy", "tif"])
@pytest.mark.parametrize("kind", ["u1", "u2", "f2", "f4", "f8"])
def test_values_are_the_same_in_either_byte_order(kind: str, suffix: str, order: str, tmp_path: Path) -> None:
    plain = drawn_values(0, 24, 20, 4) if kind.startswith("u") else drawn_values(0, 24, 20, 4) / 65535
    values = (plain >> 8 if kind == "u1" else plain).astype(order + kind)
    if suffix == "npy":
        saved(tmp_path / "a.npy", values)
    else:
        tiff(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig", byteorder=order)
    (image,) = open_images(tmp_path, FOUR)
    assert isinstance(image, ChannelImage)
    assert image.values.dtype == {"u1": np.uint8, "u2": np.uint16}.get(kind, np.float32)
    assert np.array_equal(image.values, values.astype(image.values.dtype))


@pytest.mark.parametrize("suffix", ["npy", "tif"])
def test_one_channel_needs_no_axis_of_its_own(suffix: str, tmp_path: Path) -> None:
    values = drawn_values(0, 24, 20, 1, np.dtype(np.uint16))[..., 0]
    (saved if suffix == "npy" else tiff)(tmp_path / f"a.{suffix}", values)
    (image,) = open_images(tmp_path, DecodePolicy(channels=1))
    assert np.array_equal(image.values[..., 0], values)


def test_white_is_that_of_the_type_and_not_of_the_image() -> None:
    for kind, white, depth in ((np.uint8, 255, "8 bits"), (np.uint16, 65535, "16 bits"), (np.float32, 1, "floats")):
        half = np.full((2, 2, 4), white / 2).astype(kind)
        levels = ChannelImage(half, depth).levels()
        assert np.allclose(levels, 127.5, atol=0.51 if kind is np.uint8 else 0.01)


def test_files_of_other_formats_are_passed_over_and_splits_found(tmp_path: Path) -> None:
    for number, name in enumerate(["train/a/0", "train/b/1", "val/a/2", "val/b/3"]):
        path = tmp_path / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        saved(path, drawn_values(number, 8, 8, 4))
        drawn_image(number, 8, 8).save(path.with_suffix(".png"))
    images = open_images(tmp_path, FOUR)
    assert [*images.keys] == ["a/0.npy", "b/1.npy"]
    for beside in (validation_of(tmp_path, images, FOUR), kept_out(tmp_path, images, FOUR)):
        assert beside is not None
        assert [*beside.keys] == ["a/2.npy", "b/3.npy"]
    assert [*open_images(tmp_path).keys] == ["a/0.png", "b/1.png"], "without channels, all is as it was"


def test_shards_of_channels_are_indexed_for_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the same entries as JPEG, whichever is opened first."""
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr(tar_index, "KEPT_FROM", 0)
    monkeypatch.setattr(kept_arrays, "SETTLED", -60_000_000_000)
    files = []
    for number in range(3):
        values = io.BytesIO()
        np.save(values, drawn_values(number, 8, 8, 4))
        files += [(f"{number}.jpg", hostile.jpeg(seed=number)), (f"{number}.npy", values.getvalue())]
    packed = shard(tmp_path / "x.tar", files)
    for _ in range(2):
        assert [*open_images(packed).keys] == [f"x.tar/{number}.jpg" for number in range(3)]
        found = open_images(packed, FOUR)
        assert [*found.keys] == [f"x.tar/{number}.npy" for number in range(3)]
        np.testing.assert_array_equal(found[1].values, drawn_values(1, 8, 8, 4))


PICKLED = np.array([{"a": 1}], dtype=object)
BAD: dict[str, tuple[Any, str]] = {
    "channels": (drawn_values(0, 8, 8, 3), "has 3 channels, and 4 are asked for"),
    "depth": (drawn_values(0, 8, 8, 4, np.dtype(np.uint8)), "of 8 bits, and the first image is of 16 bits"),
    "NaN": (np.full((8, 8, 4), np.nan, np.float32), "256 of its 256 values are NaN or infinite"),
    "infinity": (np.full((8, 8, 4), np.inf, np.float64), "NaN or infinite"),
    "floats beyond white": (np.full((8, 8, 4), 7.5, np.float32), "go from 7.5 to 7.5, outside of [0, 1]"),
    "signed": (np.zeros((8, 8, 4), np.int16), "is of int16"),
    "truth values": (np.zeros((8, 8, 4), bool), "is of bool"),
    "no axis": (np.uint16(3), "has the shape ()"),
    "four axes": (np.zeros((2, 8, 8, 4), np.uint16), "has the shape (2, 8, 8, 4)"),
    "no pixel": (np.zeros((0, 8, 4), np.uint16), "has the shape (0, 8, 4)"),
    "objects": (PICKLED, "holds pickled objects"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_file_is_named_in_a_sentence(fault: str, tmp_path: Path) -> None:
    values, sentence = BAD[fault]
    channel_folder(tmp_path, 1)
    np.save(tmp_path / "bad.npy", values, allow_pickle=True)
    images = open_images(tmp_path, FOUR)
    with pytest.raises(UnreadableImageError) as caught:
        images[[*images.keys].index("bad.npy")]
    said = str(caught.value)
    assert "bad.npy" in said
    assert sentence in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "fault", ["cut short", "of another format", "many pixels", "palette", "of 12 bits", "cut TIFF", "later"]
)
def test_a_broken_file_is_named_in_a_sentence(fault: str, tmp_path: Path) -> None:
    whole = saved(tmp_path / "x.npy", drawn_values(0, 8, 8, 4)).read_bytes()
    as_tiff = tiff(tmp_path / "x.tif", drawn_values(0, 64, 64, 4), photometric="minisblack", planarconfig="contig")
    drawn_image(0, 8, 8).convert("P").save(tmp_path / "p.tif")
    tiff(tmp_path / "12.tif", drawn_values(0, 8, 8, 1)[..., 0], bitspersample=16)
    twelve = bytearray((tmp_path / "12.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "12.tif") as opened:
        at = opened.pages[0].tags["BitsPerSample"].valueoffset
    twelve[at : at + 2] = (12).to_bytes(2, "little")
    content, sentence, policy = {
        "cut short": (whole[:-5], "x.npy", FOUR),
        "of another format": (b"GIF89a" + bytes(30), "TIFF, .npy, DICOM, PNG, JPEG, WEBP, BMP are read", FOUR),
        "many pixels": (whole, "8 x 8 pixels are more than the 60 allowed", DecodePolicy(60, channels=4)),
        "palette": ((tmp_path / "p.tif").read_bytes(), "palette", DecodePolicy(channels=1)),
        "of 12 bits": (bytes(twelve), "is of 12 bits", DecodePolicy(channels=1)),
        "later": (whole.replace(b"NUMPY\x01", b"NUMPY\x03"), "its format is 3.0", FOUR),
        "cut TIFF": (as_tiff.read_bytes()[:200], "x.npy", FOUR),
    }[fault]
    with pytest.raises(UnreadableImageError, match=r"x\.npy") as caught:
        decode(content, "x.npy", policy)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("shape", [(3, 8, 10**6), (1000, 1000, 4)])
def test_what_a_header_claims_is_held_against_the_file_before_memory_is_taken(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million channels, and more numbers than the file has."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<u2", "fortran_order": False, "shape": shape})
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("memory was taken"))
    with pytest.raises(UnreadableImageError, match=r"has 1000000 channels, and 4 are asked|header tells 8000000 bytes"):
        decode(file.getvalue(), "x.npy", FOUR)


def test_a_source_without_a_readable_image_is_refused_with_the_reason(tmp_path: Path) -> None:
    channel_folder(tmp_path, 3)
    with pytest.raises(ImageSourceError, match=r"none of the first 3 images can be read.*has 4 channels, and 5"):
        open_images(tmp_path, DecodePolicy(channels=5))


def test_a_tiff_without_its_reader_is_refused_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiff(tmp_path / "a.tif", drawn_values(0, 8, 8, 4), photometric="minisblack", planarconfig="contig")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ImageSourceError, match=r"pip install 'ssl-backbones\[tiff\]'"):
        open_images(tmp_path, FOUR)


def test_a_folder_of_npy_without_channels_is_told_the_option(tmp_path: Path) -> None:
    channel_folder(tmp_path, 2)
    with pytest.raises(ImageSourceError, match=r"2 \.npy \(--in_chans N reads them"):
        open_images(tmp_path)


def as_channels(image: Image.Image) -> ChannelImage:
    return ChannelImage(np.asarray(image), "8 bits")


PLAIN = Policy(jitter=(0.4, 0.0, 0.0, 0.0), grey_p=0.0, blur_p=0.0)
CLOSE = {
    "crop, flip, brightness": (PLAIN, 3),
    "blur": (Policy(jitter_p=0, grey_p=0, blur_p=1.0), 3),
    "bicubic": (Policy(interpolation="bicubic", jitter_p=0, grey_p=0, blur_p=0), 1),
}
"""A policy, and the levels by which Pillow's rounding may move a view of it."""


@pytest.mark.parametrize("case", CLOSE)
def test_views_are_those_of_pillow_but_for_its_rounding(case: str) -> None:
    policy, most = CLOSE[case]
    images = [drawn_image(number, 60 + number, 50) for number in range(6)]
    views = MultiView((policy,), 24, "pillow")
    drawn = views.draw(1, 2, np.arange(6))
    (ours,) = views.on_host([as_channels(image) for image in images], drawn)
    theirs = pillow_engine.render(images, policy, drawn[0], 24).astype(np.float32)
    assert ours.dtype == torch.float32
    assert np.abs(ours.numpy() - theirs).max() <= most
    assert np.abs(ours.numpy() - theirs).mean() < 0.8  # Pillow cuts off what brightness leaves behind the point


def test_the_middle_is_that_of_pillow_but_for_its_rounding() -> None:
    image = drawn_image(0, 60, 50)
    for transform in (CenterCrop(24), CropFlip(24)):
        drawn: Any = transform.draw(0, 0, np.arange(1))
        ours, theirs = (transform.on_host([one], drawn) for one in (as_channels(image), image))
        assert (ours - theirs).abs().max() <= 1


def test_contrast_keeps_the_mean_of_each_channel() -> None:
    values = (drawn_values(0, 40, 40, 5).astype(np.float32) / 65535 * 0.2 + 0.4).astype(np.float32)
    policy = Policy(area=(1, 1), ratio=(1, 1), jitter_p=1.0, jitter=(0.0, 0.4, 0.0, 0.0), grey_p=0, blur_p=0)
    views = MultiView((policy,), 40, mean=(0.0,), std=(1.0,))
    drawn = views.draw(0, 0, np.arange(1))
    (made,) = views.on_device(views.on_host([ChannelImage(values, "floats")], drawn))
    factor = drawn[0].factors[0, 1]
    flipped = values[:, ::-1] if drawn[0].flip[0] else values
    mean = flipped.mean(axis=(0, 1))
    assert np.allclose(made[0].permute(1, 2, 0).numpy(), mean + factor * (flipped - mean), atol=1e-5)


def test_sixteen_bits_are_more_than_eight_in_every_view() -> None:
    values = np.arange(64 * 64 * 4, dtype=np.uint16).reshape(64, 64, 4) // 16  # four levels of 8 bits in all
    image = ChannelImage(values, "16 bits")
    views = MultiView(tuple(policy.of_channels() for policy in BYOL_VIEWS), 32)
    for view in (*views.on_host([image], views.draw(0, 0, np.arange(1))), CenterCrop(32).on_host([image], None)):
        assert len(np.unique(view.numpy().round(3))) > 256


def test_views_of_colours_and_networks_of_other_channels_are_refused() -> None:
    image = ChannelImage(drawn_values(0, 20, 20, 4), "16 bits")
    views = MultiView(BYOL_VIEWS, 8)
    drawn = views.draw(0, 0, np.arange(1))
    with pytest.raises(ChannelError, match=r"changes saturation, hue, grey.*--views channels"):
        views.on_host([image], drawn)
    plain = MultiView(tuple(policy.of_channels() for policy in BYOL_VIEWS), 8)
    with pytest.raises(ChannelError, match="images of 4 channels are shown to a network of 3"):
        plain.on_device(plain.on_host([image], plain.draw(0, 0, np.arange(1))))
    with pytest.raises(ChannelError, match="images of 3 channels are shown to a network of 4: --in_chans 4"):
        CenterCrop(8, mean=(0.5,) * 4, std=(0.2,) * 4).on_device(torch.zeros(1, 8, 8, 3, dtype=torch.uint8))


def test_pictures_for_eyes_have_three_channels() -> None:
    for channels in (1, 2, 3, 7):
        image = ChannelImage(drawn_values(0, 20, 30, channels), "16 bits")
        assert np.asarray(image).shape == (20, 30, 3)
        assert np.asarray(image.resize((5, 5))).max() > 100
        assert np.asarray(picture(image.levels())).shape == (20, 30, 3)


def test_statistics_are_those_of_all_pixels(tmp_path: Path) -> None:
    channel_folder(tmp_path, 5)
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    images = open_images(tmp_path, FOUR)
    pixels = np.concatenate([np.load(file).reshape(-1, 4) for file in tmp_path.glob("[0-9]*.npy")]) / 65535
    found = measured(images, seed=3)
    assert np.allclose(found.mean, pixels.mean(axis=0), atol=1e-6)
    assert np.allclose(found.std, pixels.std(axis=0), atol=1e-6)
    assert (found.images, found.of, found.pixels) == (5, 6, len(pixels))
    assert measured(images, seed=3, most=3) == measured(images, seed=3, most=3) != measured(images, seed=4, most=3)
    images.policy = DecodePolicy(channels=3)
    with pytest.raises(ImageSourceError, match="none of 6 images"):
        measured(images, seed=3)


def test_statistics_of_rgb_are_those_of_its_levels(tmp_path: Path) -> None:
    drawn_image(0, 20, 20).save(tmp_path / "a.png")
    levels = np.asarray(drawn_image(0, 20, 20)) / 255
    assert np.allclose(measured(open_images(tmp_path), 0).mean, levels.mean(axis=(0, 1)), atol=1e-6)


def test_a_constant_channel_is_refused(tmp_path: Path) -> None:
    values = drawn_values(0, 8, 8, 4)
    values[..., 2] = 700
    saved(tmp_path / "a.npy", values)
    with pytest.raises(ImageSourceError, match=r"channel 3 of 4 is 0\.01068 in all pixels of 1 images"):
        measured(open_images(tmp_path, FOUR), 0)


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.name)
def test_every_method_takes_channels_without_colours(kind: type[MethodConfig], tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data", 8)  # for pairs mined from it; a recipe opens nothing
    recipe = tiny(kind, data, tmp_path / "out", in_chans=4, views="channels")
    config = shown(recipe.method, recipe)
    assert not any(policy.of_colours for policy in config.policies)
    for before, after in zip(tiny(kind, data, tmp_path / "out").method.policies, config.policies, strict=True):
        kept = ("area", "ratio", "flip_p", "jitter_p", "blur_p", "sigma", "size_share", "interpolation")
        assert [getattr(before, name) for name in kept] == [getattr(after, name) for name in kept]
        assert before.jitter[:2] == after.jitter[:2]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"views": "method"}, "view 1 of BYOL changes saturation, hue, grey.*--views channels"),
        ({"in_chans": 17}, "in_chans is 17, but must be from 1 to 16"),
        ({"engine": "opencv"}, "engine is 'opencv', but must be pillow"),
        ({"engine": "device"}, "engine is 'device', but must be pillow"),
        ({"cache": "there"}, "cache is 'there', but must be empty"),
    ],
    ids=str,
)
def test_what_is_made_for_rgb_alone_is_refused(fields: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        tiny(BYOLConfig, tmp_path, tmp_path / "out", **{"in_chans": 4, "views": "channels"} | fields)
