"""The draw of a view's parameters, against literal versions and against torchvision's distributions."""

from __future__ import annotations

import itertools
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop

from ssl_backbones.views import Policy, uniform
from ssl_backbones.views.policy import BRIGHTNESS, CONTRAST, HUE, SATURATION, UNIFORMS

sides = st.integers(1, 700)


def draw(policy: Policy, n: int, seed: int = 0):
    return policy.draw(uniform(seed, 0, np.arange(n), 0, UNIFORMS))


def literal_box(policy: Policy, areas, ratios, position, width: int, height: int) -> list[int]:
    """RandomResizedCrop one proposal at a time."""
    for area, ratio in zip(areas, ratios, strict=True):
        w = round(math.sqrt(width * height * area * ratio))
        h = round(math.sqrt(width * height * area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return [int(position[0] * (width - w + 1)), int(position[1] * (height - h + 1)), w, h]
    w, h = width, height
    if width / height < policy.ratio[0]:
        h = round(width / policy.ratio[0])
    elif width / height > policy.ratio[1]:
        w = round(height * policy.ratio[1])
    return [(width - w) // 2, (height - h) // 2, w, h]


@given(
    sizes=st.lists(st.tuples(sides, sides), min_size=1, max_size=8),
    seed=st.integers(0, 2**32),
    low=st.floats(0.01, 1),
    narrow=st.floats(0.2, 1),
)
def test_crop_boxes_are_the_literal_loop_and_lie_in_the_image(sizes, seed, low, narrow):
    policy = Policy(area=(low, 1.0), ratio=(narrow, 1 / narrow))
    drawn = draw(policy, len(sizes), seed)
    boxes = policy.crop_boxes(drawn, np.array(sizes))
    for row, (width, height) in enumerate(sizes):
        expected = literal_box(policy, drawn.area[row], drawn.ratio[row], drawn.position[row], width, height)
        left, top, w, h = boxes[row].tolist()
        assert [left, top, w, h] == expected
        assert 0 <= left < left + w <= width
        assert 0 <= top < top + h <= height


@pytest.mark.parametrize(("width", "height"), [(500, 375), (96, 96), (60, 400)])
def test_crop_boxes_are_distributed_as_torchvisions(width, height):
    n = 4000
    policy = Policy(area=(0.08, 1.0))
    ours = policy.crop_boxes(draw(policy, n), np.full((n, 2), (width, height)))
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    boxes = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(n)]
    theirs = np.array(boxes)[:, [1, 0, 3, 2]]
    for column in range(4):
        levels = np.arange(max(width, height) + 1)
        gap = [np.searchsorted(np.sort(boxes[:, column]), levels, side="right") / n for boxes in (ours, theirs)]
        assert np.abs(gap[0] - gap[1]).max() < 2.2 * math.sqrt(2 / n)  # Kolmogorov and Smirnov's, at p = 1e-4


def test_an_image_that_no_proposal_fits_is_cropped_at_its_centre():
    policy = Policy(area=(1.0, 1.0))
    assert policy.crop_boxes(draw(policy, 1), np.array([[1000, 10]])).tolist() == [[493, 0, 13, 10]]
    assert policy.crop_boxes(draw(policy, 1), np.array([[10, 1000]])).tolist() == [[0, 493, 10, 13]]


def test_parameters_follow_their_chances_and_ranges():
    n = 20_000
    policy = Policy(
        area=(0.3, 0.9),
        ratio=(0.5, 2.0),
        flip_p=0.3,
        jitter_p=0.7,
        jitter=(0.4, 1.5, 0.2, 0.1),
        grey_p=0.25,
        blur_p=0.6,
        sigma=(0.5, 1.5),
        solarize_p=0.15,
    )
    drawn = draw(policy, n)
    jittered = (drawn.order >= 0).all(axis=1)
    assert (jittered | (drawn.order < 0).all(axis=1)).all()
    happens = {0.3: drawn.flip, 0.7: jittered, 0.25: drawn.grey, 0.6: drawn.sigma > 0, 0.15: drawn.solarize}
    for chance, happened in happens.items():
        assert happened.mean() == pytest.approx(chance, abs=0.015)
    for first, second in itertools.combinations(happens.values(), 2):
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.04
    ranges = [(drawn.area, 0.3, 0.9), (np.log2(drawn.ratio), -1, 1), (drawn.sigma[drawn.sigma > 0], 0.5, 1.5)]
    bounds = {BRIGHTNESS: (0.6, 1.4), CONTRAST: (0.0, 2.5), SATURATION: (0.8, 1.2), HUE: (-0.1, 0.1)}
    ranges += [(drawn.factors[:, column], low, high) for column, (low, high) in bounds.items()]
    for values, low, high in ranges:
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))


def test_all_orders_of_the_colour_operations_are_alike_likely():
    orders, counts = np.unique(draw(Policy(jitter_p=1.0), 24_000).order, axis=0, return_counts=True)
    assert orders.tolist() == [list(order) for order in itertools.permutations(range(4))]
    assert np.abs(counts - 1000).max() < 5 * math.sqrt(1000)


def test_an_operation_without_strength_is_left_out():
    drawn = draw(Policy(jitter_p=1.0, jitter=(0.4, 0.0, 0.4, 0.0)), 500)
    assert (np.sort(drawn.order, axis=1) == [-1, -1, BRIGHTNESS, SATURATION]).all()


def test_zero_and_one_are_certain():
    never = draw(Policy(flip_p=0, jitter_p=0, grey_p=0, blur_p=0, solarize_p=0), 2000)
    happened = [never.flip, never.grey, never.sigma, never.solarize]
    assert not np.any(happened)
    assert (never.order == -1).all()
    always = draw(Policy(flip_p=1, jitter_p=1, grey_p=1, blur_p=1, solarize_p=1), 2000)
    assert always.flip.all()
    assert always.grey.all()
    assert always.sigma.all()
    assert always.solarize.all()
    assert (always.order >= 0).all()


def test_a_change_of_one_chance_leaves_the_other_draws_alone():
    plain, changed = draw(Policy(), 100), draw(replace(Policy(), blur_p=1.0, flip_last=True, turn_p=1.0), 100)
    for field in fields(plain):
        same = np.array_equal(getattr(plain, field.name), getattr(changed, field.name))
        assert same == (field.name not in ("sigma", "quarters")), field.name


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.75, 1.0])
def test_turned_views_are_shared_alike_by_one_two_and_three_quarters(chance):
    drawn = draw(Policy(turn_p=chance), 20_000)
    shares = np.bincount(drawn.quarters, minlength=4) / 20_000
    assert shares == pytest.approx([1 - chance, *[chance / 3] * 3], abs=0.015)
    if chance:
        assert abs(np.corrcoef(drawn.quarters, drawn.flip)[0, 1]) < 0.04


def test_turns_take_a_number_behind_all_others():
    """So that views that are not turned are those of runs from before there were turns."""
    before = uniform(3, 1, np.arange(50), 1, UNIFORMS - 1)
    np.testing.assert_array_equal(uniform(3, 1, np.arange(50), 1, UNIFORMS)[:, :-1], before)
    plain, turned = (draw(Policy(turn_p=chance), 50) for chance in (0.0, 0.5))
    for field in fields(plain)[:-1]:
        np.testing.assert_array_equal(getattr(plain, field.name), getattr(turned, field.name))


def test_a_policy_is_told_with_its_turns_where_it_has_some():
    assert repr(Policy()) == (
        "Policy(area=(0.2, 1.0), ratio=(0.75, 1.3333333333333333), interpolation='bilinear', flip_p=0.5, "
        "flip_last=False, jitter_p=0.8, jitter=(0.4, 0.4, 0.4, 0.1), grey_p=0.2, blur_p=0.5, sigma=(0.1, 2.0), "
        "solarize_p=0.0, threshold=128, size_share=1.0)"
    )
    assert repr(Policy(turn_p=0.75)) == f"{repr(Policy())[:-1]}, turn_p=0.75)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flip_p": 1.5}, r"flip_p is 1\.5, but it has to be a probability"),
        ({"jitter_p": -0.1}, "jitter_p is"),
        ({"grey_p": float("nan")}, "grey_p is nan"),
        ({"blur_p": 2}, "blur_p is 2"),
        ({"solarize_p": 2}, "solarize_p is 2"),
        ({"turn_p": 1.1}, r"turn_p is 1\.1"),
        ({"area": (0.0, 1.0)}, r"area is \(0\.0, 1\.0\)"),
        ({"area": (0.9, 0.2)}, "area is"),
        ({"area": (0.2, 1.2)}, "area is"),
        ({"ratio": (2.0, 1.0)}, "ratio is"),
        ({"sigma": (0.0, 2.0)}, "sigma is"),
        ({"sigma": (2.0, 0.1)}, "sigma is"),
        ({"jitter": (0.4, 0.4, 0.4)}, "jitter is"),
        ({"jitter": (0.4, 0.4, -0.4, 0.1)}, "jitter is"),
        ({"jitter": (0.4, 0.4, 0.4, 0.6)}, "hue, the fourth, of at most 0.5"),
        ({"threshold": 300}, "threshold is 300"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest'.*'bilinear' or 'bicubic'"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Policy(**change)
