"""One geometry for an image and its mask, drawn from counters alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from conftest import drawn_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scenes import DrawnScenes, scene

from ssl_backbones.data import Request
from ssl_backbones.evaluate.segmentation.mask_values import IGNORED
from ssl_backbones.evaluate.segmentation.scene_views import (
    BILINEAR,
    TRIES,
    Placement,
    ScaleCropFlip,
    Scene,
    SceneBatches,
    WholeScene,
    scaled_size,
)
from ssl_backbones.views import uniform

PLAIN = {"mean": (0.5, 0.5, 0.5), "std": (1.0, 1.0, 1.0)}


def placed(scale: float, down: float = 0.0, across: float = 0.0, flip: bool = False) -> Placement:
    position = np.zeros((1, TRIES, 2))
    position[0, 0] = down, across
    return Placement(np.array([scale]), position, np.array([flip]))


def shown(view: ScaleCropFlip, scene: Scene, placement: Placement) -> tuple[np.ndarray, np.ndarray]:
    levels, masks = view.on_host([scene], placement)
    return levels[0].numpy(), masks[0].numpy()


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(5, 70),
    height=st.integers(5, 70),
    scale=st.floats(0.5, 2.0),
    short=st.sampled_from([0, 24]),
    down=st.floats(0, 0.999),
    across=st.floats(0, 0.999),
    flip=st.booleans(),
)
def test_it_is_a_crop_of_the_scaled_scene(
    width: int, height: int, scale: float, short: int, down: float, across: float, flip: bool
) -> None:
    size = 32
    image, mask = (
        drawn_image(width, width, height),
        np.arange(width * height).reshape(height, width).astype(np.uint8) % 200,
    )
    view = ScaleCropFlip(size, short_side=short, **PLAIN)
    levels, cut = shown(view, Scene(image, mask), placed(scale, down, across, flip))
    factor = scale * (short / min(width, height) if short else 1)
    w, h = (max(1, round(side * factor)) for side in (width, height))
    whole = np.asarray(image.resize((w, h), BILINEAR)).astype(int)
    top, left = int(down * (max(h - size, 0) + 1)), int(across * (max(w - size, 0) + 1))
    expected = np.full((size, size, 3), 128)
    part = whole[top : top + size, left : left + size]
    expected[: len(part), : part.shape[1]] = part
    if flip:
        levels, cut = levels[:, ::-1], cut[:, ::-1]
    assert np.abs(levels.astype(int) - expected).max() <= 2
    found = cut[: len(part), : part.shape[1]]
    assert (found != IGNORED).all()
    assert (cut == IGNORED).sum() == size**2 - found.size
    # On a tie between two pixels, the last bit of a box decides.
    rows, columns = (
        [((np.arange(n) + 0.5) * side / n + bit).astype(int).clip(0, side - 1) for bit in (-1e-6, 1e-6)]
        for n, side in ((h, height), (w, width))
    )
    allowed = [mask[np.ix_(row, column)][top : top + size, left : left + size] for row in rows for column in columns]
    assert np.any([found == nearest for nearest in allowed], axis=0).all()


@pytest.mark.parametrize("seed", range(6))
def test_image_and_mask_stay_together(seed: int) -> None:
    """An image painted with its classes shows the crop's mask in the crop's pixels."""
    mask = scene(seed, 60, 50)[1]
    mask[mask == IGNORED] = 0
    painted = Image.fromarray(np.repeat((mask * 60)[:, :, None], 3, axis=2))
    view = ScaleCropFlip(40, **PLAIN)
    levels, masks = view.on_host([Scene(painted, mask)] * 8, view.draw(seed, 0, np.arange(8)))
    known = masks != IGNORED
    off = (levels[..., 0].float() - 60 * masks.float()).abs()[known]
    assert (off > 30).float().mean() < 0.08  # along edges alone, where the image is smoothed
    assert known.float().mean() > 0.3


def test_beyond_a_small_image_is_the_mean_and_nothing_is_known() -> None:
    image, mask = scene(1, 20, 16)
    view = ScaleCropFlip(32)
    levels, cut = view.on_host([Scene(image, mask)], placed(1.0))
    assert (cut[0, 16:] == IGNORED).all()
    assert (cut[0, :, 20:] == IGNORED).all()
    normalised, classes = view.on_device((levels, cut))
    assert normalised[0, :, 16:].abs().max() < 0.02
    assert classes.dtype == torch.int64
    np.testing.assert_array_equal(levels[0, :16, :20].numpy(), np.asarray(image))


def test_a_crop_full_of_one_class_is_passed_over() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[48:, 48:] = 1
    image = Image.fromarray(np.zeros((64, 64, 3), np.uint8))
    position = np.zeros((1, TRIES, 2))
    position[0, 6] = 0.999
    placement = Placement(np.ones(1), position, np.zeros(1, bool))
    first = ScaleCropFlip(32, **PLAIN).on_host([Scene(image, mask)], placement)[1]
    other = ScaleCropFlip(32, max_share=0.8, **PLAIN).on_host([Scene(image, mask)], placement)[1]
    assert (int((first == 1).sum()), int((other == 1).sum())) == (0, 256)
    stubborn = ScaleCropFlip(32, max_share=0.5, **PLAIN).on_host([Scene(image, mask)], placement)[1]
    assert int((stubborn == 1).sum()) == 0  # the last of ten, as none will do


def test_choices_are_functions_of_counters() -> None:
    view = ScaleCropFlip(24, scale=(0.5, 2.0))
    indices = np.array([5, 2, 9])
    drawn, alone = view.draw(3, 1, indices), view.draw(3, 1, indices[1:2])
    for name in ("scale", "position", "flip"):
        np.testing.assert_array_equal(getattr(drawn, name)[1:2], getattr(alone, name))
    assert not np.array_equal(drawn.scale, view.draw(3, 2, indices).scale)
    assert not np.array_equal(drawn.scale, view.draw(4, 1, indices).scale)
    many = view.draw(0, 0, np.arange(4000))
    assert (many.scale.min() >= 0.5, many.scale.max() < 2.0) == (True, True)
    assert abs(many.scale.mean() - 1.25) < 0.03
    assert abs(many.flip.mean() - 0.5) < 0.03
    np.testing.assert_allclose(many.scale, 0.5 + 1.5 * uniform(0, 0, np.arange(4000), 0, 22)[:, 0])


def test_a_batch_is_the_same_however_it_is_cut() -> None:
    dataset = SceneBatches(DrawnScenes(9), ScaleCropFlip(24), seed=2)
    indices = np.array([4, 1, 7, 0])
    levels, masks = dataset[Request(3, indices)].content
    parts = [dataset[Request(3, indices[start : start + 2])].content for start in (0, 2)]
    assert torch.equal(levels, torch.cat([part[0] for part in parts]))
    assert torch.equal(masks, torch.cat([part[1] for part in parts]))


def test_another_scene_stands_in_whole_for_one_that_cannot_be_read() -> None:
    from ssl_backbones.data import UnreadableImageError

    class Broken(DrawnScenes):
        def __getitem__(self, index: int) -> Image.Image:
            if index == 4:
                raise UnreadableImageError("4.png is torn")
            return super().__getitem__(index)

    scenes = Broken(9)
    dataset = SceneBatches(scenes, WholeScene(), seed=0)
    batch = dataset[Request(0, np.array([4]))]
    at = dataset.read(4, {})[0]
    assert (at != 4, set(batch.unreadable)) == (True, {"4.png"})
    np.testing.assert_array_equal(batch.content[1][0].numpy(), scenes.mask(at))
    np.testing.assert_array_equal(batch.content[0][0].numpy(), np.asarray(scenes[at]))


@pytest.mark.parametrize(("short", "expected"), [(0, (40, 32)), (64, (80, 64)), (8, (10, 8))])
def test_a_whole_scene_keeps_its_mask(short: int, expected: tuple[int, int]) -> None:
    image, mask = scene(2)
    levels, masks = WholeScene(short).on_host([Scene(image, mask)], None)
    assert levels.shape == (1, expected[1], expected[0], 3)
    np.testing.assert_array_equal(masks[0].numpy(), mask)
    assert scaled_size(image.size, 1.0, short) == expected


def test_transforms_are_plain_values() -> None:
    views: list[Any] = [ScaleCropFlip(24), WholeScene(16)]
    assert all(dataclasses.replace(view) == view for view in views)
