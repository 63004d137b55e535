"""PixPro: recorded numbers, slow literal versions of its equations, its pairs of positions, and its paper's heads."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_methods import Drawn, small_method
from test_rivals import RECORDED, assert_recorded, normal, raw
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from ssl_backbones.data import Batches, Request
from ssl_backbones.losses import nearby, parts, pixel_consistency, propagated
from ssl_backbones.methods import PixProConfig
from ssl_backbones.recipes import get
from ssl_backbones.views import PIXPRO_VIEWS, LocatedViews, MultiView
from ssl_backbones.weightless import weightless

sizes = st.integers(1, 5)
seeds = st.integers(0, 99)


def positions(*shape: int, b: float) -> Tensor:
    """Recorded maps (N, C, H, H) as positions (N, P, C)."""
    return raw(*shape, b=b).flatten(2).mT


def test_recorded_numbers() -> None:
    given_, recorded = RECORDED["pixpro/4x4"]["inputs"], RECORDED["pixpro/4x4"]["outputs"]
    count, dim, side = given_["N"], given_["C"], given_["H"]
    shape = (count, dim, side, side)
    method: Any = small_method(PixProConfig, projection_dim=dim).double()
    method.value.weight.data.copy_(raw(dim, dim, b=given_["b_w"]))
    method.value.bias.data.copy_(0.1 * raw(dim, b=given_["b_w"] + 1))
    maps = [raw(*shape, b=given_[name]).requires_grad_() for name in ("b_1", "b_2")]
    x1, x2 = (each.flatten(2).mT for each in maps)
    y1, y2 = (propagated(x, method.value(x), given_["p"]) for x in (x1, x2))
    unit = normalize(y1[0, 0], dim=0)
    assert unit.tolist() == pytest.approx(recorded["ppm_of_view1_image0_pixel0"], rel=1e-9)
    corners = [torch.tensor(given_[name], dtype=torch.float64) for name in ("coord1", "coord2")]
    pairs = nearby(*corners, (side, side), given_["pos_ratio"])
    first = pixel_consistency(y1, positions(*shape, b=given_["b_k2"]), pairs)
    second = pixel_consistency(y2, positions(*shape, b=given_["b_k1"]), pairs.mT)
    each = [
        pixel_consistency(y1[row, None], positions(*shape, b=given_["b_k2"])[row, None], pairs[row, None]).item()
        for row in range(count)
    ]
    assert each == pytest.approx(recorded["per_image_1_to_2"], rel=1e-9, abs=1e-12)
    assert first.item() == pytest.approx(recorded["loss_1_to_2"], rel=1e-9)
    assert second.item() == pytest.approx(recorded["loss_2_to_1"], rel=1e-9)
    assert (first + second).item() == pytest.approx(recorded["loss"], rel=1e-9)
    for gradient, name in zip(torch.autograd.grad(first + second, maps), ("y1", "y2"), strict=True):
        assert_recorded(gradient, recorded["grad"][name])


@settings(max_examples=20, deadline=None)
@given(sizes, sizes, sizes, st.floats(1, 3), seeds)
def test_propagation_is_the_equation(count: int, places: int, dim: int, gamma: float, seed: int) -> None:
    x, g = normal(seed, count, places, dim), normal(seed + 1, count, places, dim)
    expected = torch.zeros(count, places, dim, dtype=torch.float64)
    for b in range(count):
        for i in range(places):
            for j in range(places):
                cosine = float(x[b, i] @ x[b, j]) / float(x[b, i].norm() * x[b, j].norm())
                expected[b, i] += max(min(cosine, 1.0), 0.0) ** gamma * g[b, j] / g[b, j].norm()
    torch.testing.assert_close(propagated(x, g, gamma), expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(sizes, sizes, sizes, sizes, seeds)
def test_consistency_is_the_equation(count: int, places: int, others: int, dim: int, seed: int) -> None:
    y, x = normal(seed, count, places, dim), normal(seed + 1, count, others, dim)
    pairs = normal(seed + 2, count, places, others) > 0.5
    each = []
    for b in range(count):
        found = [
            float(normalize(y[b, i], dim=0) @ normalize(x[b, j], dim=0))
            for i in range(places)
            for j in range(others)
            if pairs[b, i, j]
        ]
        each.append(-2 * sum(found) / (len(found) + 1e-6))
    assert pixel_consistency(y, x, pairs).item() == pytest.approx(sum(each) / count, rel=1e-9, abs=1e-12)


def bin_middles(box: list[float], high: int, wide: int) -> list[tuple[float, float]]:
    """The middles of h x w parts of a box x0, y0, x1, y1, row by row."""
    x0, y0, x1, y1 = box
    return [
        (x0 + (column + 0.5) / wide * (x1 - x0), y0 + (row + 0.5) / high * (y1 - y0))
        for row in range(high)
        for column in range(wide)
    ]


@settings(max_examples=30, deadline=None)
@given(sizes, sizes, st.floats(0.2, 2), seeds)
def test_pairs_are_the_equation(high: int, wide: int, distance: float, seed: int) -> None:
    corners = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = nearby(*corners, (high, wide), distance)
    for image in range(3):
        boxes = corners[:, image].tolist()
        diagonal = max(math.hypot((box[2] - box[0]) / wide, (box[3] - box[1]) / high) for box in boxes)
        first, second = (bin_middles(box, high, wide) for box in boxes)
        for i, a in enumerate(first):
            for j, b in enumerate(second):
                apart = math.dist(a, b) / diagonal
                assert abs(apart - distance) < 1e-9 or bool(found[image, i, j]) == (apart < distance)


@pytest.mark.parametrize("flipped", [False, True])
def test_a_view_is_paired_with_itself_position_by_position(flipped: bool) -> None:
    """Also mirrored: then the columns of one are those of the other from the other end."""
    corners = torch.tensor([[0.2, 0.1, 0.7, 0.9]])
    other = corners[:, [2, 1, 0, 3]] if flipped else corners
    pairs = nearby(corners, other, (3, 4), 0.4)[0].view(3, 4, 3, 4)
    expected = torch.eye(12, dtype=torch.bool).view(3, 4, 3, 4)
    assert torch.equal(pairs, expected.flip(3) if flipped else expected)


def test_pairs_show_the_same_of_an_image() -> None:
    """The mean of every pair's pixels is about the same; of positions that are no pair, it is not."""
    plain = [
        replace(view, jitter_p=0.0, grey_p=0.0, blur_p=0.0, solarize_p=0.0, area=(0.3, 1)) for view in PIXPRO_VIEWS
    ]
    dataset = Batches(Drawn(12), LocatedViews(MultiView(tuple(plain), 32)), 0)
    (view1, view2), geometry = dataset.on_device(dataset[Request(0, np.arange(12))].content)
    first, second = (adaptive_avg_pool2d(view, 8).flatten(2).mT for view in (view1, view2))
    pairs = nearby(*geometry.corners().unbind(), (8, 8), 0.4)
    apart = torch.cdist(first, second)
    assert geometry.flips.any()
    assert apart[pairs].mean() < 0.4 * apart[~pairs].mean()


@pytest.mark.parametrize("at_once", [1, 40])
def test_parts_give_the_loss_of_the_whole(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, g, target = (normal(seed, 5, 4, 3) for seed in range(3))
    pairs = normal(4, 5, 4, 4) > 0

    def scored() -> list[Tensor]:
        inputs = [x.clone().requires_grad_(), g.clone().requires_grad_()]
        loss = pixel_consistency(propagated(inputs[0], inputs[1], 2.0), target, pairs)
        return [loss.detach(), *torch.autograd.grad(loss, inputs)]

    whole = scored()
    monkeypatch.setattr(parts, "AT_ONCE", at_once)
    for value, expected in zip(scored(), whole, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-14)


def test_an_image_whose_views_share_nothing_counts_as_zero() -> None:
    y, x = normal(0, 2, 3, 4), normal(1, 2, 3, 4)
    pairs = torch.ones(2, 3, 3, dtype=torch.bool)
    pairs[1] = False
    alone = pixel_consistency(y[:1], x[:1], pairs[:1])
    assert pixel_consistency(y, x, pairs).item() == pytest.approx(alone.item() / 2)


def test_the_heads_are_the_papers() -> None:
    with weightless():
        method = PixProConfig().build(timm.create_model("resnet50", num_classes=0))
    assert sum(weight.numel() for weight in method.projector.parameters()) == 9_449_728
    assert sum(weight.numel() for weight in method.value.parameters()) == 65_792
    assert not list(method.target.named_parameters(prefix="value", recurse=False))


def test_the_rates_are_the_papers() -> None:
    recipe = get("resnet50_pixpro.in1k_100ep")
    assert recipe.lr(0, 1251) == pytest.approx(0.04 + 3.96 / (5 * 1251))
    assert recipe.lr(5 * 1251, 1251) == pytest.approx(4.0)
    assert recipe.lr(100 * 1251 - 1, 1251) == pytest.approx(1e-6, rel=1e-2)


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"distance": 0.0}, "distance must be positive"),
        ({"sharpness": 0.5}, "sharpness is 0.5, but must be at least 1"),
        ({"grid": -1}, "grid is -1, but must be at least 0"),
        ({"target_momentum": 1.5}, "target_momentum is a momentum"),
    ],
    ids=str,
)
def test_a_wrong_choice_is_refused_in_words(choices: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        small_method(PixProConfig, **choices)
