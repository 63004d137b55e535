"""The eight views, against a slow literal version and by what must hold of them; and the augmentation before them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import drawn_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ssl_backbones.views import CropFlip, PatchViews, Rotations, patch_views, rotations
from ssl_backbones.views.patches import patch_side


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def literal(image: Tensor, ratio: float, corners: Tensor, antialias: bool = False) -> list[Tensor]:
    """The views of one image (C, S, S): rotate, then resize, then paste, one after another; corners are (4, 2)."""
    side = int(image.shape[1] * ratio)
    views = [torch.rot90(image, quarters, (1, 2)) for quarters in range(4)]
    for quarters in range(4):
        turned = torch.rot90(image, quarters, (1, 2))[None]
        patch = interpolate(turned, (side, side), mode="bilinear", align_corners=False, antialias=antialias)[0]
        view, (row, column) = image.clone(), corners[quarters].tolist()
        view[:, row : row + side, column : column + side] = patch
        views.append(view)
    return views


def test_the_example_done_by_hand() -> None:
    image = torch.arange(64.0).view(1, 1, 8, 8)
    views = patch_views(image, 0.5, torch.tensor([[2, 3]]))
    patches = views[4:, 0, 2:6, 3:7]
    by_hand = [[r + c for c in (0, 2, 4, 6)] for r in (4.5, 20.5, 36.5, 52.5)]
    assert patches[0].tolist() == by_hand
    assert patches[1, 0].tolist() == [10.5, 26.5, 42.5, 58.5]
    assert patches[2, 0].tolist() == [58.5, 56.5, 54.5, 52.5]
    assert patches[3, 0].tolist() == [52.5, 36.5, 20.5, 4.5]
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[2:6, 3:7] = False
    assert all(torch.equal(view[0][outside], image[0, 0][outside]) for view in views[4:])
    assert [views[quarters, 0, 0, 0].item() for quarters in range(4)] == [0, 7, 63, 56]  # counter-clockwise


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(4, 20),
    st.floats(0.26, 0.99),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_patch_views_are_what_they_are_said_to_be(
    batch: int, channels: int, size: int, ratio: float, per_view: bool, antialias: bool, seed: int
) -> None:
    images = normal(seed, batch, channels, size, size)
    places = size - patch_side(size, ratio) + 1
    shape = (batch, 4, 2) if per_view else (batch, 2)
    corners = torch.randint(places, shape, generator=torch.Generator().manual_seed(seed))
    views = patch_views(images, ratio, corners, antialias).view(8, batch, channels, size, size)
    for number, image in enumerate(images):
        four = corners[number].expand(4, 2)
        torch.testing.assert_close(
            views[:, number], torch.stack(literal(image, ratio, four, antialias)), rtol=0, atol=1e-12
        )
    torch.testing.assert_close(views[:4], rotations(images).view(4, batch, channels, size, size), rtol=0, atol=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 16), st.floats(0.26, 0.8), st.integers(0, 99))
def test_what_does_not_change_from_view_to_view(size: int, ratio: float, seed: int) -> None:
    images = normal(seed, 2, 3, size, size)
    side = patch_side(size, ratio)
    corners = torch.randint(size - side + 1, (2, 2), generator=torch.Generator().manual_seed(seed))
    views = patch_views(images, ratio, corners).view(8, 2, 3, size, size)
    outside = torch.ones(2, 3, size, size, dtype=torch.bool)
    for mask, (row, column) in zip(outside, corners.tolist(), strict=True):
        mask[:, row : row + side, column : column + side] = False
    for view in views[4:]:
        assert torch.equal(view[outside], images[outside])  # the background is upright under every patch
    sums = views.sum((2, 3, 4))
    torch.testing.assert_close(sums[:4], sums[:1].expand(4, 2))
    torch.testing.assert_close(sums[4:], sums[4:5].expand(4, 2))
    assert not torch.equal(views[4], images)


@pytest.mark.parametrize(
    ("size", "sides"), [(96, (28, 38, 48)), (64, (19, 25, 32)), (32, (9, 12, 16))], ids=["stl10", "tiny", "cifar"]
)
def test_a_side_is_rounded_down(size: int, sides: tuple[int, ...]) -> None:
    assert tuple(patch_side(size, ratio) for ratio in (0.3, 0.4, 0.5)) == sides


def test_views_come_channels_last_and_in_the_type_of_the_images() -> None:
    images = normal(0, 2, 3, 8, 8).half()
    for views in (patch_views(images.float(), 0.5, torch.zeros(2, 2, dtype=torch.long)), rotations(images)):
        assert views.is_contiguous(memory_format=torch.channels_last)
    assert rotations(images).dtype == torch.float16


@pytest.mark.parametrize("make", [rotations, lambda images: patch_views(images, 0.4, torch.zeros(2, 2).long())])
def test_what_is_not_square_is_refused(make) -> None:
    with pytest.raises(ValueError, match=r"images of 8 x 12 cannot be turned by 90 degrees .*: make them square"):
        make(torch.zeros(2, 3, 8, 12))


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.4, 1.4, float("nan"), float("inf")])
def test_a_ratio_outside_0_to_1_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=r"ratio is the patch's share of the image's side and must be in \(0, 1\)"):
        PatchViews(CropFlip(32), ratio)


def test_a_patch_without_a_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="has no pixel in images of 8 x 8"):
        PatchViews(CropFlip(8), 0.1)


# The augmentation before the views


def shown(transform: CropFlip | Rotations | PatchViews, images: list[Image.Image], epoch: int = 0):
    return transform.on_host(images, transform.draw(7, epoch, np.arange(len(images))))


def test_a_crop_is_one_of_the_padded_image() -> None:
    images = [drawn_image(number, 24, 24) for number in range(30)]
    transform = CropFlip(24)
    placed = transform.draw(7, 0, np.arange(30))
    assert transform.margin == 3
    assert set(placed.corner.ravel().tolist()) == set(range(7))
    assert 5 < placed.flip.sum() < 25
    for levels, image, (row, column), flip in zip(
        shown(transform, images).numpy(), images, placed.corner, placed.flip, strict=True
    ):
        padded = np.zeros((30, 30, 3), np.uint8)
        padded[3:27, 3:27] = np.asarray(image)
        cropped = padded[row : row + 24, column : column + 24]
        assert np.array_equal(levels, cropped[:, ::-1] if flip else cropped)


def test_without_chances_a_square_image_stays_as_it_is() -> None:
    image = drawn_image(3, 20, 20)
    assert np.array_equal(shown(CropFlip(20, padding=0, flip_p=0), [image])[0].numpy(), np.asarray(image))


def test_other_images_are_made_square(small_images: list[Image.Image]) -> None:
    levels = shown(CropFlip(16, padding=0, flip_p=0), small_images)
    assert levels.shape == (6, 16, 16, 3)
    assert levels.dtype == torch.uint8
    half = small_images[3].resize((38, 16), Image.Resampling.BILINEAR).crop((11, 0, 27, 16))
    assert np.array_equal(levels[3].numpy(), np.asarray(half))


@pytest.mark.parametrize(
    ("choices", "words"),
    [({"padding": -0.1}, "padding is -0.1"), ({"flip_p": 2.0}, "flip_p is 2.0"), ({"size": 0}, "size is 0")],
)
def test_a_wrong_augmentation_is_refused(choices: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CropFlip(**{"size": 16} | choices)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8), st.integers(0, 50), st.sampled_from([0.3, 0.4, 0.5]))
def test_a_place_depends_on_the_image_and_the_epoch_alone(rows: list[int], epoch: int, ratio: float) -> None:
    indices = np.array(rows)
    for positions, shape in (("per image", (2,)), ("per view", (4, 2))):
        transform = PatchViews(CropFlip(32), ratio, positions)
        placed, corners = transform.draw(3, epoch, indices)
        assert corners.shape == (len(rows), *shape)
        assert corners.min() >= 0
        assert corners.max() <= 32 - patch_side(32, ratio)
        for at, index in enumerate(rows):
            alone, corner = transform.draw(3, epoch, np.array([index]))
            assert np.array_equal(corner[0], corners[at])
            assert np.array_equal(alone.corner[0], placed.corner[at])


def test_all_places_are_used_alike_and_anew_each_epoch() -> None:
    transform = PatchViews(CropFlip(8), 0.5, "per view")
    _, first = transform.draw(0, 0, np.arange(2000))
    _, second = transform.draw(0, 1, np.arange(2000))
    assert not np.array_equal(first, second)
    assert np.bincount(first.ravel(), minlength=5).min() > 0.9 * first.size / 5
    assert (first[:, 0] != first[:, 1]).any()


def test_the_augmentation_is_shared_by_the_views_of_an_image() -> None:
    images = [drawn_image(number, 20, 20) for number in range(4)]
    transform = PatchViews(CropFlip(20), 0.4)
    host = shown(transform, images)
    assert torch.equal(host["levels"], shown(transform.base, images))
    upright = transform.base.on_device(host["levels"])
    views = transform.on_device(host)
    torch.testing.assert_close(views, patch_views(upright, 0.4, host["corners"]), rtol=0, atol=0)
    turned = Rotations(transform.base)
    torch.testing.assert_close(turned.on_device(shown(turned, images)), views[: 4 * 4], rtol=0, atol=0)
