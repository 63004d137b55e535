"""Large JPEG decoded no finer than the drawn crops need: how far it is from decoding all, and what it depends on."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from epochs import epoch_of
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from ssl_backbones.data import Batches, Request, UnreadableImageError, open_images
from ssl_backbones.data.decode import decode
from ssl_backbones.data.exchanged import ExchangedBatches
from ssl_backbones.data.parts import Exchange
from ssl_backbones.data.upright import ORIENTATION, UPRIGHT
from ssl_backbones.mining.paired import PairedBatches
from ssl_backbones.train.loader import Loader
from ssl_backbones.views import LEWEL_B_VIEWS, MOCO_V2_VIEWS, MultiView, SingleView
from ssl_backbones.views.reduction import DIVISORS, GAP, LARGE, ReducedImage, using_reduction

pytest.importorskip("cv2", reason="OpenCV is not installed")

SAMPLE = Path(__file__).parents[1] / "training" / "sample_photos" / "validation.parquet"
WIDTH, HEIGHT = 1163, 883
LEVELS = {"mean": 1.0, "p99": 6}
"""The distance of views of a sharp image from Pillow's of all its pixels: on average, and for 99 values in 100."""


@cache
def tiles() -> list[Image.Image]:
    source = open_images(SAMPLE)
    return [source[at].resize((80, 80)) for at in range(40)]


def mosaic(first: int, width: int, height: int) -> Image.Image:
    """An image as sharp as its pixels allow: real images side by side, at about their own size."""
    whole = Image.new("RGB", (width, height))
    corners = [(left, top) for top in range(0, height, 80) for left in range(0, width, 80)]
    for at, corner in enumerate(corners, start=first):
        whole.paste(tiles()[at % len(tiles())], corner)
    return whole


def jpeg(image: Image.Image, turn: int = 1, **choices: Any) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, exif=exif, **choices)
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six large JPEG of odd and even sides, upright and turned, a small one, and a large PNG."""
    made = tmp_path_factory.mktemp("large")
    for number, turn in enumerate((1, 3, 6, 8, 1, 1)):
        (made / f"{number}.jpg").write_bytes(jpeg(mosaic(11 * number, WIDTH + number, HEIGHT), turn))
    (made / "6.jpg").write_bytes(jpeg(mosaic(7, 320, 240)))
    mosaic(50, 1200, 900).save(made / "7.png", compress_level=1)
    return made


def made(folder: Path, rows: list[int], engine: Any, size: int = 48, epoch: int = 0) -> np.ndarray:
    """Views (V, B, S, S, 3) of the images at the rows."""
    dataset = Batches(open_images(folder), MultiView(LEWEL_B_VIEWS, size, engine=engine), seed=3)
    return np.stack([view.numpy() for view in dataset[Request(epoch, np.array(rows))].content])


@pytest.mark.parametrize("size", [16, 48, 96])
def test_views_of_large_images_are_within_the_stated_levels_of_pillows_of_all_pixels(folder: Path, size: int) -> None:
    rows = [*range(6)] * 2
    found = np.abs(made(folder, rows, "opencv", size).astype(int) - made(folder, rows, "pillow", size))
    assert found.mean() <= LEVELS["mean"]
    assert np.percentile(found, 99) <= LEVELS["p99"]


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_an_image_is_decoded_no_finer_than_its_crops_need_and_never_coarser(folder: Path, epoch: int) -> None:
    """The next coarser way would leave a crop too few pixels; the views' sides go through all the divisors."""
    seen = set()
    for size in (8, 32, 64, 120, 400):
        transform = MultiView(MOCO_V2_VIEWS, size, engine="opencv")
        dataset = Batches(open_images(folder), transform, seed=1)
        _, images = dataset.read_all(Request(epoch, np.arange(6)), {})
        for index, image in enumerate(images):
            whole, by = (image.whole, image.by) if isinstance(image, ReducedImage) else (image.size, 1)
            assert sorted(whole) == sorted((WIDTH + index, HEIGHT))
            assert image.size == tuple(-(-side // by) for side in whole)
            boxes = [
                policy.crop_boxes(drawn, np.array([whole]))[0]
                for policy, drawn in zip(transform.policies, transform.draw(1, epoch, np.array([index])), strict=True)
            ]
            side = min(min(box[2:]) for box in boxes)
            assert by == 1 or side / by >= GAP * size
            assert by == 8 or side / (2 * by) < GAP * size
            seen.add(by)
    assert seen == {1, *DIVISORS}


@pytest.mark.parametrize("engine", ["pillow", "device"])
def test_the_other_engines_see_all_pixels(folder: Path, engine: Any) -> None:
    for transform in (MultiView(MOCO_V2_VIEWS, 8, engine), SingleView(MultiView(MOCO_V2_VIEWS[:1], 8, engine))):
        _, images = Batches(open_images(folder), transform, 0).read_all(Request(0, np.arange(8)), {})
        assert not any(isinstance(image, ReducedImage) for image in images)


def test_small_images_and_other_formats_are_decoded_whole_and_so_is_what_nobody_draws_crops_of(folder: Path) -> None:
    images = open_images(folder)
    assert images[6].width * images[6].height < LARGE
    _, read = Batches(images, MultiView(MOCO_V2_VIEWS, 8, "opencv"), 0).read_all(Request(0, np.arange(8)), {})
    assert [isinstance(image, ReducedImage) for image in read] == [True] * 6 + [False] * 2
    assert not isinstance(images[0], ReducedImage)


def test_the_views_of_an_image_are_the_same_beside_any_others(folder: Path) -> None:
    """They are a function of seed, epoch and index, as a resumed run wants it."""
    together = made(folder, [4, 0, 2, 6], "opencv", epoch=5)
    for place, row in enumerate([4, 0, 2, 6]):
        assert (made(folder, [row], "opencv", epoch=5)[:, 0] == together[:, place]).all()
    assert (made(folder, [4], "opencv", epoch=6)[:, 0] != together[:, 0]).any()


def test_exchanged_and_paired_views_are_those_of_the_image_on_its_own(folder: Path) -> None:
    images, transform = open_images(folder), MultiView(MOCO_V2_VIEWS, 32, engine="opencv")
    request = Request(1, np.array([0, 1]), Exchange(np.array([1, 5]), np.arange(2)))
    query, key = ExchangedBatches(images, transform, 0)[request].content.views
    for at, row in enumerate((0, 1)):
        assert torch.equal(query[0][at], Batches(images, transform, 0)[Request(1, np.array([row]))].content[0][0])
    for at, row in enumerate((1, 5)):
        assert torch.equal(key[0][at], Batches(images, transform, 0)[Request(1, np.array([row]))].content[1][0])
    three = MultiView((*MOCO_V2_VIEWS, MOCO_V2_VIEWS[0]), 32, engine="opencv")
    partners = np.array([[(row + 1) % 8] for row in range(8)])
    views, _ = PairedBatches(images, three, 0, partners)[Request(1, np.array([2, 7]))].content
    again, _ = PairedBatches(images, three, 0, partners)[Request(1, np.array([7]))].content
    assert all(torch.equal(view[0][1], other[0][0]) for view, other in zip(views, again, strict=True))


@cache
def smooth(turn: int) -> tuple[bytes, Image.Image]:
    """An image whose levels tell places, across and down at once, and the same decoded; no side is a multiple of 8."""
    across, down = np.meshgrid(np.linspace(0, 255, 1397), np.linspace(0, 255, 1001))
    levels = np.stack([across, down, np.full_like(across, 128)], axis=2).astype(np.uint8)
    encoded = jpeg(Image.fromarray(levels), turn, subsampling=0)
    return encoded, decode(encoded, "whole")


@pytest.mark.parametrize("turn", [1, *UPRIGHT])
@pytest.mark.parametrize("by", DIVISORS)
def test_parts_of_a_reduced_image_lie_where_they_lie_in_the_whole(turn: int, by: int) -> None:
    encoded, whole = smooth(turn)
    with using_reduction(lambda width, height: by):
        reduced = decode(encoded, "reduced")
    assert isinstance(reduced, ReducedImage)
    assert (reduced.whole, reduced.by) == (whole.size, by)
    for box in ((0, 0, *whole.size), (whole.width - 400, whole.height - 300, 400, 300), (100, 200, 320, 280)):
        left, top, width, height = box
        expected = whole.crop((left, top, left + width, top + height)).resize((16, 16), Image.Resampling.BILINEAR)
        found = reduced.part(box, 16, Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(found).astype(int) - np.asarray(expected)).max() <= 2


@pytest.mark.parametrize("kind", ["grey", "cmyk", "progressive", "torn"])
def test_odd_jpeg_is_reduced_or_refused_as_when_it_is_whole(kind: str) -> None:
    image = mosaic(0, 1200, 900)
    encoded = {
        "grey": lambda: jpeg(image.convert("L")),
        "cmyk": lambda: jpeg(image.convert("CMYK")),
        "progressive": lambda: jpeg(image, progressive=True),
        "torn": lambda: jpeg(image)[:30_000],
    }[kind]()
    with using_reduction(lambda width, height: 4):
        if kind == "torn":
            with pytest.raises(UnreadableImageError, match="truncated"):
                decode(encoded, "torn")
            return
        found = decode(encoded, kind)
    assert (found.mode, found.size) == ("RGB", (300, 225))
    whole = decode(encoded, kind).resize(found.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(found).astype(int) - np.asarray(whole)).mean() < 2


def test_an_image_that_pillow_does_not_reduce_is_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = jpeg(mosaic(0, 1201, 899), turn=6)
    whole = decode(encoded, "whole")
    with using_reduction(lambda width, height: 8):
        assert isinstance(decode(encoded, "reduced"), ReducedImage)
        monkeypatch.setattr(JpegImageFile, "draft", lambda *given: None)
        found = decode(encoded, "declined")
    assert not isinstance(found, ReducedImage)
    assert np.array_equal(np.asarray(found), np.asarray(whole))


def test_a_loader_that_goes_on_hands_over_the_same_batches_in_workers_too(folder: Path) -> None:
    dataset = Batches(open_images(folder), MultiView(LEWEL_B_VIEWS, 32, engine="opencv"), seed=3)
    (_, step), (again,) = (
        [batch.content for batches in epoch_of(Loader(dataset, 4, 5, workers=workers), 1, first) for batch in batches]
        for workers, first in ((0, 0), (1, 1))
    )
    assert all(torch.equal(view, other) for view, other in zip(step, again, strict=True))
