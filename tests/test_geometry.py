"""Places of views: images whose colours are their coordinates tell where a view of them lies, on every engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from epochs import epoch_of
from PIL import Image
from small_methods import Drawn
from test_resident import CPU
from torch import Tensor

from ssl_backbones.data import Batches, Images, Request, UnreadableImageError, open_images
from ssl_backbones.data.batches import BatchDataset
from ssl_backbones.data.exchanged import Exchanged, ExchangedBatches
from ssl_backbones.data.parts import Exchange
from ssl_backbones.data.placement import in_layout, to_device
from ssl_backbones.data.resident import ResidentImages
from ssl_backbones.train.cache import Caching, cached
from ssl_backbones.train.loader import Loader
from ssl_backbones.views import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MOCO_V2_VIEWS,
    Engine,
    Geometry,
    Located,
    LocatedViews,
    MultiView,
)
from ssl_backbones.views.reduction import ReducedImage

PLAIN = replace(MOCO_V2_VIEWS[0], jitter_p=0.0, grey_p=0.0, blur_p=0.0)
POLICIES = (PLAIN, replace(PLAIN, flip_last=True), replace(PLAIN, area=(0.05, 0.14), size_share=3 / 7))
ENGINES: list[Engine] = ["pillow", "opencv", "device"]


def coloured(width: int, height: int) -> Image.Image:
    """An image whose red grows from left to right and whose green grows from top to bottom, from 0 to 255."""
    across, down = (np.linspace(0, 255, side) for side in (width, height))
    levels = np.stack([*np.meshgrid(across, down), np.zeros((height, width))], axis=2)
    return Image.fromarray(levels.round().astype(np.uint8))


def misplaced(view: Tensor, corners: Tensor) -> float:
    """The largest distance, in shares of the sides, of pixels of a view (3, S, S) from where its corners (4,) say."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    found = (view * std + mean)[:2]
    side = view.shape[2]
    middle = (torch.arange(side) + 0.5) / side
    x0, y0, x1, y1 = corners
    expected = torch.stack(
        [(x0 + (x1 - x0) * middle).expand(side, side), (y0 + (y1 - y0) * middle[:, None]).expand(side, side)]
    )
    inner = slice(1, -1)
    return float((found - expected)[:, inner, inner].abs().max())


class Coloured(Images):
    """Such images of several shapes; some cannot be read."""

    classes = ("x",)

    def __init__(self, count: int, torn: tuple[int, ...] = ()) -> None:
        self.keys = [f"{number}.png" for number in range(count)]
        self.labels = np.zeros(count, np.int64)
        self.fingerprint, self.torn = f"{count} coloured", torn

    def __getitem__(self, index: int) -> Image.Image:
        if index in self.torn:
            raise UnreadableImageError(f"{self.keys[index]} is torn")
        return coloured(90 + 13 * index, 140 - 9 * index)


def assert_told(dataset: BatchDataset, request: Request, tolerance: float = 0.02) -> Located:
    """The places of all views are where they lie; returns what a method would be given."""
    found = dataset.on_device(to_device(dataset[request].content, CPU))
    assert isinstance(found, Located)
    for view, corners in zip(found.views, found.geometry.corners(), strict=True):
        assert max(misplaced(*pair) for pair in zip(view, corners, strict=True)) < tolerance
    assert 0 < found.geometry.flips.float().mean() < 1
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_places_are_where_views_lie(engine: Engine) -> None:
    dataset = Batches(Coloured(6, torn=(2,)), LocatedViews(MultiView(POLICIES, 32, engine)), seed=1)
    found = assert_told(dataset, Request(0, np.arange(6)))
    assert found.geometry.boxes.shape == (6, 3, 4)
    assert found.geometry.sizes[2].tolist() != [90 + 26, 140 - 18]  # another stands in for the torn one


@pytest.mark.parametrize("engine", ENGINES)
def test_views_with_places_are_those_without(engine: Engine) -> None:
    plain = MultiView(MOCO_V2_VIEWS, 16, engine)
    request = Request(3, np.arange(6))
    with_places, without = (Batches(Drawn(6), each, seed=4) for each in (LocatedViews(plain), plain))
    located = with_places.on_device(with_places[request].content)
    for view, same in zip(located.views, without.on_device(without[request].content), strict=True):
        torch.testing.assert_close(view, same, rtol=0, atol=0)
    again = with_places[request].content.geometry
    assert all(torch.equal(*pair) for pair in zip(located.geometry, again, strict=True))
    laid_out = in_layout(located, "channels_last")
    assert isinstance(laid_out, Located) and isinstance(laid_out.geometry, Geometry)  # noqa: PT018


def test_places_are_of_the_whole_image_where_less_of_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "of").mkdir()
    for number in range(4):
        coloured(1300 + number, 1000).save(tmp_path / "of" / f"{number}.jpg", quality=97, subsampling=0)
    dataset = Batches(open_images(tmp_path), LocatedViews(MultiView(POLICIES[:2], 48, "opencv")), seed=0)
    request = Request(0, np.arange(4))
    assert all(isinstance(image, ReducedImage) for image in dataset.read_all(request, {})[1])
    found = assert_told(dataset, request, tolerance=0.03)
    assert found.geometry.sizes.tolist() == [[1300 + number, 1000] for number in range(4)]


def test_places_of_resident_images_are_those_of_images_that_are_sent(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / "photos" / "of").mkdir(parents=True, exist_ok=True)
        coloured(60 + number, 50 - number).save(tmp_path / "photos" / "of" / f"{number}.png")
    images = cached(open_images(tmp_path / "photos"), "data", Caching(tmp_path / "cache"))
    transform = LocatedViews(MultiView(POLICIES, 16, engine="device"))
    sent, named = (Batches(each, transform, seed=3) for each in (images, ResidentImages(images, CPU)))  # type: ignore[arg-type]
    assert_told(named, Request(0, np.arange(6)), tolerance=0.05)
    for (one,), (other,) in zip(*(epoch_of(Loader(batches, 3, 3), 0) for batches in (sent, named)), strict=True):
        assert all(torch.equal(*pair) for pair in zip(one.content.geometry, other.content.geometry, strict=True))


def test_readers_hand_over_what_is_made_in_process() -> None:
    dataset = Batches(Coloured(8), LocatedViews(MultiView(POLICIES, 16)), seed=3)
    for (one,), (other,) in zip(*(epoch_of(Loader(dataset, 4, 3, workers=count), 1) for count in (0, 2)), strict=True):
        assert isinstance(other.content, Located)
        torch.testing.assert_close(one.content, other.content, rtol=0, atol=0)


@pytest.mark.parametrize("torn", [(), (1,)], ids=str)
def test_places_in_exchange_are_those_in_the_images_asked_for(torn: tuple[int, ...]) -> None:
    """The views of keys are of other images; their places are the queries' own, as if nothing were exchanged."""
    dataset = ExchangedBatches(Coloured(8, torn), LocatedViews(MultiView(POLICIES, 16)), seed=0)
    own = np.arange(4)
    places = np.array([4, 5, 6, 7, 0, 1, 2, 3])
    exchanged = dataset.on_device(dataset[Request(0, own, Exchange(np.arange(4, 8), places))].content)
    assert isinstance(exchanged, Located)
    assert isinstance(exchanged.views, Exchanged)
    alone = assert_told(dataset, Request(0, own), tolerance=0.04)
    assert all(torch.equal(*pair) for pair in zip(exchanged.geometry, alone.geometry, strict=True))
    theirs = dataset.on_device(dataset[Request(0, np.arange(4, 8))].content).views
    assert torch.equal(exchanged.views.views[0], alone.views[0])
    assert all(torch.equal(*pair) for pair in zip(exchanged.views.views[1:], theirs[1:], strict=True))


def test_corners_in_pixels_are_the_crops_first_and_last_pixels() -> None:
    boxes = torch.tensor([[[2, 1, 22, 9], [7, 0, 24, 7]], [[0, 9, 17, 24], [3, 2, 14, 38]]])
    geometry = Geometry(boxes, torch.tensor([[True, False], [False, True]]), torch.tensor([[33, 11], [18, 45]]))
    expected = [[[23.0, 1, 2, 9], [0, 9, 16, 32]], [[7, 0, 30, 6], [16, 2, 3, 39]]]
    torch.testing.assert_close(geometry.corners_in_pixels(), torch.tensor(expected))


def test_an_image_of_one_pixel_has_places() -> None:
    geometry = Geometry(torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[True]]), torch.tensor([[1, 1]]))
    assert geometry.corners().tolist() == [[[0.0, 0.0, 0.0, 0.0]]]
