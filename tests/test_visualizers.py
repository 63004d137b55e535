"""Overlays, grids and alignment figures: what is drawn where, and what is left as it was."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from torch import Tensor, nn

import ssl_backbones
from ssl_backbones.methods import LewelB, LewelBConfig
from ssl_backbones.visualizers import (
    DAWN,
    CoarseMapWarning,
    alignment_figure,
    alignment_maps,
    grad_cam,
    grid,
    most_distinct,
    overlay,
    palette,
    stretched,
)
from ssl_backbones.visualizers.inspection import enlarged

heats = arrays.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(0, 1, width=32))


def luminance(colours: np.ndarray) -> np.ndarray:
    """The relative luminance (K,) of sRGB colours (K, 3)."""
    coded = colours / 255
    light = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    return light @ [0.2126, 0.7152, 0.0722]


def test_lightness_alone_tells_the_order_of_colours() -> None:
    assert DAWN.shape == (256, 3)
    assert DAWN.dtype == np.uint8
    lightness = np.cbrt(luminance(DAWN))
    assert lightness[0] < 0.3
    assert lightness[-1] > 0.9
    assert (lightness[4:] > lightness[:-4]).all()


def test_a_palette_is_known_at_its_ends_and_even_between() -> None:
    greys = palette([(0, 0, 0), (1, 0, 0)], 101)
    assert greys[0].tolist() == [0, 0, 0]
    assert greys[-1].tolist() == [255, 255, 255]
    assert np.ptp(greys, axis=1).max() <= 1
    # OKLab lightness is the cube root of luminance for greys, so the middle has luminance 1/8.
    assert luminance(greys)[50] == pytest.approx(1 / 8, abs=2e-3)


@settings(max_examples=30, deadline=None)
@given(heat=heats, width=st.integers(1, 40), height=st.integers(1, 40), alpha=st.floats(0, 1))
def test_an_overlay_is_the_stated_mixture(heat: np.ndarray, width: int, height: int, alpha: float) -> None:
    image = Image.new("RGB", (width, height), (10, 200, 90))
    drawn, bare = overlay(image, heat, alpha=alpha), overlay(image, heat, alpha=1)
    assert (drawn.mode, drawn.size) == ("RGB", image.size)
    expected = (1 - alpha) * np.asarray(image, dtype=float) + alpha * np.asarray(bare, dtype=float)
    assert np.abs(np.asarray(drawn) - expected).max() <= 1
    known = {tuple(colour) for colour in DAWN.tolist()}
    assert {tuple(colour) for colour in np.asarray(bare).reshape(-1, 3).tolist()} <= known


def test_heat_is_drawn_where_it_is(small_images: list[Image.Image]) -> None:
    heat = np.zeros((4, 6))
    heat[3, 0] = 1
    for image in small_images:
        lightness = luminance(np.asarray(overlay(image, heat, alpha=1)).astype(float))
        row, column = np.unravel_index(lightness.argmax(), lightness.shape)
        assert row >= image.height * 3 // 4 - 1
        assert column <= image.width // 6 + 1


def test_upsampling_is_torchs_bilinear() -> None:
    heat = torch.rand(5, 7, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(heat[None, None], size=(40, 56), mode="bilinear")[0, 0]
    greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    drawn = np.asarray(overlay(Image.new("RGB", (56, 40)), heat.numpy(), alpha=1, colours=greys))[..., 0]
    assert np.abs(drawn - 255 * large.numpy()).max() <= 1


@pytest.mark.parametrize(
    ("heat", "alpha", "message"),
    [
        (np.zeros((2, 2, 2)), 0.5, r"shape \(2, 2, 2\)"),
        (np.zeros((0, 2)), 0.5, r"shape \(0, 2\)"),
        (np.full((2, 2), 1.5), 0.5, "from 1.5 to 1.5"),
        (np.full((2, 2), np.nan), 0.5, "nan"),
        (np.zeros((2, 2)), 2.0, "alpha is 2.0"),
    ],
)
def test_an_overlay_refuses_what_is_not_heat(heat: np.ndarray, alpha: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overlay(Image.new("RGB", (4, 4)), heat, alpha=alpha)


def test_stretching_fills_the_range_and_never_divides_by_zero() -> None:
    maps = np.stack([np.array([[0.2, 0.3], [0.25, 0.25]]), np.full((2, 2), 0.25)])
    assert stretched(maps) == pytest.approx(np.stack([np.array([[0, 1], [0.5, 0.5]]), np.zeros((2, 2))]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_stays_without_a_value_and_spoils_no_other(value: float) -> None:
    maps = np.random.default_rng(0).random((3, 4, 5))
    maps[1, 2, 3] = value
    assert np.isnan(stretched(maps)[1]).all()
    assert (stretched(maps)[[0, 2]] == stretched(maps[[0, 2]])).all()
    large = enlarged(torch.from_numpy(np.repeat(np.repeat(maps, 2, axis=1), 2, axis=2)), (16, 20))
    assert large[1].isnan().all()
    assert large[[0, 2]].isfinite().all()
    with pytest.raises(ValueError, match="heat runs from nan"):
        overlay(Image.new("RGB", (8, 8)), stretched(maps)[1])


def test_a_grid_puts_each_picture_in_its_cell() -> None:
    red, blue, tall = Image.new("RGB", (20, 10), "red"), Image.new("RGB", (8, 10), "blue"), Image.new("L", (20, 30), 7)
    sheet = grid([[red, blue], [tall]], gap=4)
    assert sheet.size == (4 + 20 + 4 + 8 + 4, 4 + 10 + 4 + 30 + 4)
    pixels = np.asarray(sheet)
    assert (pixels[4:14, 4:24] == (255, 0, 0)).all()
    assert (pixels[4:14, 28:36] == (0, 0, 255)).all()
    assert (pixels[18:48, 4:24] == 7).all()
    assert (pixels[18:48, 28:36] == 255).all()
    assert (pixels[:, :4] == 255).all()
    assert (pixels[14:18] == 255).all()


def test_words_have_room_of_their_own() -> None:
    cell = Image.new("RGB", (12, 12), "red")
    bare = grid([[cell, cell]])
    sheet = grid([[cell, cell]], titles=["a rather long title", "b"], row_labels=["row"])
    assert sheet.width > bare.width + 50
    assert sheet.height > bare.height + 8
    pixels = np.asarray(sheet).astype(int)
    red = (pixels == (255, 0, 0)).all(-1)
    assert red.sum() == 2 * 12 * 12
    dark = pixels.sum(-1) < 300
    top, left = np.argwhere(red).min(0)
    assert dark[:top].any()
    assert dark[:, :left].any()
    dark[1:-1, 1:-1] = False
    assert not dark.any()


def test_a_grid_refuses_words_without_pictures() -> None:
    cell = Image.new("RGB", (4, 4))
    with pytest.raises(ValueError, match="0 rows"):
        grid([])
    with pytest.raises(ValueError, match="2 titles and 0 row labels for 1 columns, 1 rows"):
        grid([[cell]], titles=["a", "b"])
    with pytest.raises(ValueError, match="0 titles and 2 row labels"):
        grid([[cell]], row_labels=["a", "b"])


def bumps(*centres: tuple[float, float, float]) -> np.ndarray:
    """Maps (n, 8, 8), each a Gaussian at (row, column) of a width, summing to one."""
    y, x = np.mgrid[0:8, 0:8]
    maps = np.stack([np.exp(-((y - r) ** 2 + (x - c) ** 2) / (2 * width**2)) for r, c, width in centres])
    return maps / maps.sum((1, 2), keepdims=True)


def test_the_sharpest_map_comes_first_and_its_twin_last() -> None:
    maps = bumps((1, 1, 1.2), (1, 1.2, 1.0), (6, 6, 1.5), (1, 6, 3.0))
    assert most_distinct(maps, 1) == [1]
    assert most_distinct(maps, 2) == [1, 2]
    assert most_distinct(maps, 4)[-1] == 0
    assert sorted(most_distinct(maps, 4)) == [0, 1, 2, 3]


def test_maps_of_a_batch_are_judged_together() -> None:
    one, other = bumps((1, 1, 1), (1, 1, 1.1), (6, 6, 2)), bumps((3, 3, 0.8), (5, 5, 1.1), (3, 3, 1.2))
    assert most_distinct(one, 2) == [0, 2]
    assert most_distinct(np.stack([one, one]), 2) == [0, 2]
    assert most_distinct(np.stack([other, other, one]), 2) == [0, 1]


def test_ties_and_uniform_maps_are_settled_by_index() -> None:
    assert most_distinct(np.full((5, 3, 3), 1 / 9), 3) == [0, 1, 2]
    assert most_distinct(np.eye(4).reshape(4, 2, 2), 4) == [0, 1, 2, 3]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 10), k=st.integers(1, 10))
def test_each_choice_is_the_greedy_one(seed: int, n: int, k: int) -> None:
    maps = np.random.default_rng(seed).dirichlet(np.full(12, 0.5), n).reshape(n, 3, 4)
    k = min(k, n)
    chosen = most_distinct(maps, k)
    flat = maps.reshape(n, -1)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    for step in range(1, k):
        closest = {i: max(unit[i] @ unit[j] for j in chosen[:step]) for i in range(n) if i not in chosen[:step]}
        assert closest[chosen[step]] == pytest.approx(min(closest.values()))
    assert len(set(chosen)) == k


@pytest.mark.parametrize(("shape", "k"), [((4, 2, 2), 0), ((4, 2, 2), 5), ((2, 2), 1)])
def test_a_choice_out_of_range_is_refused(shape: tuple[int, ...], k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k} of maps"):
        most_distinct(np.ones(shape), k)


class Maps(nn.Module):
    """A stand-in whose maps are the softmax of brightness, and which tells the mode it was asked in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.frozen = nn.BatchNorm2d(3).eval()
        self.modes: list[tuple[bool, bool]] = []

    def alignment_maps(self, images: Tensor) -> Tensor:
        self.modes.append((self.training, torch.is_grad_enabled()))
        return self.norm(images).flatten(2).softmax(-1).view_as(images)


def test_maps_are_read_in_evaluation_mode_and_nothing_is_left_behind() -> None:
    method = Maps().train()
    method.frozen.eval()
    maps = alignment_maps(method, torch.randn(2, 3, 4, 4))
    assert method.modes == [(False, False)]
    assert not maps.requires_grad
    assert [m.training for m in (method, method.norm, method.frozen)] == [True, True, False]
    assert method.norm.num_batches_tracked == 0
    with pytest.raises(RuntimeError):
        alignment_maps(method, torch.randn(2, 5, 4, 4))
    assert method.training


def test_a_method_without_maps_says_which_have_them() -> None:
    with pytest.raises(TypeError, match="BatchNorm2d has no alignment maps; LewelB, LewelM and Aligned do"):
        alignment_maps(nn.BatchNorm2d(3), torch.zeros(1, 3, 4, 4))


def test_the_maps_of_lewel_sum_to_one_and_are_drawn(small_images: list[Image.Image]) -> None:
    torch.manual_seed(0)
    backbone = timm.create_model("resnet18", num_classes=0)
    method = LewelB(backbone, LewelBConfig(hidden_dim=32, projection_dim=16, aligned_dim=16))
    square = [image.resize((64, 64)) for image in small_images]
    pixels = np.stack([np.asarray(image, dtype=np.float32) for image in square]).transpose(0, 3, 1, 2)
    maps = alignment_maps(method, torch.from_numpy(pixels) / 255)
    assert maps.shape == (6, 16, 2, 2)
    assert maps.sum((2, 3)) == pytest.approx(torch.ones(6, 16).numpy(), abs=1e-5)
    figure = alignment_figure(square, maps, k=3, side=40)
    assert figure.width >= 4 * 40
    assert figure.height >= 6 * 40


def test_a_figure_shows_the_image_then_its_most_distinct_maps(small_images: list[Image.Image]) -> None:
    maps = torch.from_numpy(np.stack([bumps((1, 1, 1), (1, 1, 1.1), (6, 6, 2))] * 2)).float().requires_grad_()
    figure = alignment_figure([small_images[2], small_images[2]], maps, k=2, side=80)
    grey, heats = small_images[2].convert("L"), stretched(maps.detach().numpy())[0]
    expected = [small_images[2], *(overlay(grey, heats[index], alpha=0.6) for index in (0, 2))]
    assert np.array_equal(
        np.asarray(figure), np.asarray(grid([expected, expected], titles=["image", "map 0", "map 2"]))
    )
    every = alignment_figure(small_images[:2], maps, k=6, side=32)
    assert every.size == alignment_figure(small_images[:2], maps, k=3, side=32).size
    with pytest.raises(ValueError, match=r"\(2, 3, 8, 8\) for 1 images"):
        alignment_figure(small_images[:1], maps)


def test_a_map_of_few_places_is_told_of() -> None:
    network = ssl_backbones.create_model("resnet8", num_classes=0)
    with pytest.warns(CoarseMapWarning, match="6 x 6 places, fewer than 7 x 7: take larger images"):
        grad_cam(network, torch.randn(1, 3, 24, 24))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grad_cam(network, torch.randn(1, 3, 28, 28))
