"""Metrics of localisation against slow versions and known values."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import sem
from scipy.stats import t as student
from torch import Tensor

from ssl_backbones.metrics import (
    centre_prior,
    deletion_auc,
    energy_inside,
    insertion_auc,
    mean_interval,
    paired_difference,
    pointing_game,
)
from ssl_backbones.metrics.interval import student_t
from ssl_backbones.metrics.localisation import blurred, grown


def drawn(seed: int, count: int = 3, height: int = 7, width: int = 9) -> tuple[Tensor, Tensor]:
    """Maps (B, H, W) with equal values among them, and masks with some pixels on."""
    stream = np.random.default_rng(seed)
    maps = torch.from_numpy(stream.integers(0, 12, (count, height, width)).astype(np.float32))
    masks = torch.from_numpy(stream.random((count, height, width)) < 0.15)
    masks[:, 3, 4] = True
    return maps, masks


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), tolerance=st.sampled_from([0, 1, 1.5, 2.9, 4]))
def test_the_pointing_game_is_the_literal_one(seed: int, tolerance: float) -> None:
    maps, masks = drawn(seed)
    for heat, mask, found in zip(maps, masks, pointing_game(maps, masks, tolerance), strict=True):
        peaks = np.argwhere(heat.numpy() == heat.max().item())
        objects = np.argwhere(mask.numpy())
        hits = [min(math.dist(peak, pixel) for pixel in objects) <= tolerance for peak in peaks]
        assert found.item() == pytest.approx(np.mean(hits))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_energy_is_the_literal_one(seed: int) -> None:
    maps, masks = drawn(seed)
    for heat, mask, found in zip(maps, masks, energy_inside(maps, masks), strict=True):
        inside = sum(heat[y, x].item() for y, x in np.argwhere(mask.numpy()))
        assert found.item() == pytest.approx(inside / heat.sum().item())


def test_a_map_that_says_nothing_scores_the_share_of_the_objects() -> None:
    _, masks = drawn(0)
    share = masks.double().mean((1, 2))
    for maps in (torch.zeros(3, 7, 9), torch.full((3, 7, 9), 0.4)):
        torch.testing.assert_close(energy_inside(maps, masks), share)
        torch.testing.assert_close(pointing_game(maps, masks, 0), share)
        torch.testing.assert_close(pointing_game(maps, masks, 2), grown(masks, 2).double().mean((1, 2)))


def test_an_image_without_an_object_is_left_out() -> None:
    maps, masks = drawn(0)
    masks[1] = False
    for found in (pointing_game(maps, masks, 1), energy_inside(maps, masks)):
        assert found.isnan().tolist() == [False, True, False]
        kept = mean_interval(found)
        assert kept == mean_interval(found[[0, 2]])


def brightness(images: Tensor) -> Tensor:
    """A network that lives by the first channel's left half."""
    return images[:, 0, :, :4].mean((1, 2))


class TestCurves:
    def test_the_literal_curve(self) -> None:
        images = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
        maps = torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(1))
        deleted, inserted = (
            deletion_auc(brightness, images, maps, steps=4),
            insertion_auc(brightness, images, maps, steps=4),
        )
        blurry = blurred(images, 5.0)
        for at in range(2):
            ranked = sorted(range(48), key=lambda pixel: -maps[at].flatten()[pixel].item())
            scores: dict[str, list[float]] = {"deletion": [], "insertion": []}
            for step in range(5):
                moved = ranked[: round(step / 4 * 48)]
                for name, start, end in (("deletion", images, torch.zeros_like(images)), ("insertion", blurry, images)):
                    image = start[at].flatten(1).clone()
                    image[:, moved] = end[at].flatten(1)[:, moved]
                    scores[name].append(brightness(image.view(1, 3, 6, 8)).item())
            areas = {name: sum((a + b) / 2 / 4 for a, b in pairwise(s)) for name, s in scores.items()}
            assert deleted[at].item() == pytest.approx(areas["deletion"], abs=1e-6)
            assert inserted[at].item() == pytest.approx(areas["insertion"], abs=1e-6)

    def test_the_right_map_deletes_sooner_and_inserts_sooner(self) -> None:
        images = torch.ones(1, 3, 8, 8)
        images[:, :, :, ::2] = 3.0
        right = torch.zeros(1, 8, 8)
        right[:, :, :4] = 1
        assert deletion_auc(brightness, images, right) < deletion_auc(brightness, images, 1 - right) - 0.5
        drop = torch.where(torch.arange(8) % 2 == 0, 3.0, 0.0).expand(1, 3, 8, 8)
        peaks = (drop[:, 0] > 0).float()
        assert insertion_auc(lambda x: x[:, 0].square().mean((1, 2)), drop, peaks) > 0

    def test_equal_pixels_go_as_the_seed_says(self) -> None:
        images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        flat = torch.ones(2, 16, 16)
        one = deletion_auc(brightness, images, flat, seed=1)
        torch.testing.assert_close(one, deletion_auc(brightness, images, flat, seed=1), rtol=0, atol=0)
        assert not torch.equal(one, deletion_auc(brightness, images, flat, seed=2))
        # a blind order takes away as much as it has gone, on average
        torch.testing.assert_close(one, brightness(images).double() / 2, atol=0.02, rtol=0)

    def test_a_blur_keeps_the_mean_and_spreads_a_point(self) -> None:
        torch.testing.assert_close(blurred(torch.full((1, 3, 9, 9), 0.7), 2.0), torch.full((1, 3, 9, 9), 0.7))
        point = torch.zeros(1, 1, 31, 31)
        point[0, 0, 15, 15] = 1
        spread = blurred(point, 2.0)[0, 0]
        y = torch.arange(31.0) - 15
        assert spread.sum().item() == pytest.approx(1, abs=1e-4)
        assert (spread.sum(1) * y**2).sum().item() == pytest.approx(4, rel=0.05)

    def test_mistakes(self) -> None:
        images = torch.zeros(2, 3, 4, 4)
        with pytest.raises(ValueError, match=r"maps are \(2, 2, 2\) for images \(2, 3, 4, 4\), steps 10"):
            deletion_auc(brightness, images, torch.zeros(2, 2, 2))
        with pytest.raises(ValueError, match="steps 0"):
            insertion_auc(brightness, images, torch.zeros(2, 4, 4), steps=0)


def test_the_centre_prior_is_highest_in_the_middle_and_even_about_it() -> None:
    prior = centre_prior(8, 12)
    assert prior.shape == (8, 12)
    torch.testing.assert_close(prior, prior.flip(0))
    torch.testing.assert_close(prior, prior.flip(1))
    assert divmod(int(centre_prior(7, 5).argmax()), 5) == (3, 2)
    assert centre_prior(7, 5)[3, 2] == 1
    # at a spread from the centre a Gaussian is exp(-1/2)
    assert centre_prior(100, 101, 0.25)[50, 75].item() == pytest.approx(math.exp(-0.5), abs=0.02)


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(400, 60, generator=generator, dtype=torch.float64)
    held = sum(one.low <= 0.5 <= one.high for one in map(mean_interval, draws))
    assert 0.92 <= held / 400 <= 0.975
    gains = [paired_difference(draw, draw * 0.9 + 0.1, 0.9) for draw in draws]
    assert 0.85 <= sum(gain.low <= 0.05 <= gain.high for gain in gains) / 400 <= 0.945
    one, other = draws[0].numpy(), draws[1].numpy()
    for found, values in ((mean_interval(draws[0]), one), (paired_difference(draws[1], draws[0]), one - other)):
        theirs = student.interval(0.95, len(values) - 1, loc=values.mean(), scale=sem(values))
        assert (found.value, found.low, found.high) == pytest.approx((values.mean(), *theirs), abs=1e-12)
    with_gap = torch.tensor([0.1, 0.5, torch.nan])
    assert paired_difference(with_gap, torch.tensor([0.2, 0.7, 0.9])).value == pytest.approx(0.15)


@pytest.mark.parametrize("count", [2, 5, 20])
def test_few_images_show_no_difference_more_often_than_they_may(count: int) -> None:
    """Better without a difference in one of forty times, where gaps are equal too."""
    stream = np.random.default_rng(count)
    draws = torch.from_numpy(stream.uniform(0, 1, (2, 1000, count)))
    gains = [paired_difference(*pair) for pair in zip(*draws, strict=True)]
    assert sum(gain.low > 0 for gain in gains) / 1000 < 0.045
    held = sum(one.low <= 0.5 <= one.high for one in map(mean_interval, draws[0]))
    assert 0.91 <= held / 1000 <= 0.97
    for value in (0.0, 0.3, 1.0):
        equal = torch.full((count,), value, dtype=torch.float64)
        one, gain = mean_interval(equal), paired_difference(torch.zeros(count), equal)
        for found, least in ((one, 0), (gain, -1)):
            assert found.value == pytest.approx(value)
            assert least <= found.low <= found.value <= found.high <= 1
            assert found.high - found.low > 0.14 * (count / 20) ** -0.5
        assert gain.low <= 0 or count > 2


@given(freedom=st.integers(1, 3000), confidence=st.floats(0.01, 0.9999))
def test_students_t_is_scipys(freedom: int, confidence: float) -> None:
    assert student_t(freedom, confidence) == pytest.approx(student.ppf(0.5 + confidence / 2, freedom), rel=1e-9)


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (torch.zeros(2, 4, 4), torch.zeros(2, 4, 5, dtype=torch.bool), r"maps are \(2, 4, 4\) and masks torch.bool"),
        (torch.zeros(2, 4, 4), torch.zeros(2, 4, 4), r"masks torch.float32"),
        (torch.zeros(4, 4), torch.zeros(4, 4, dtype=torch.bool), r"give \(B, H, W\)"),
        (torch.full((1, 2, 2), torch.nan), torch.ones(1, 2, 2, dtype=torch.bool), "NaN or infinity"),
    ],
)
def test_maps_and_objects_that_do_not_fit(maps: Tensor, masks: Tensor, message: str) -> None:
    for measure in (pointing_game, energy_inside):
        with pytest.raises(ValueError, match=message):
            measure(maps, masks)


def test_other_mistakes() -> None:
    masks = torch.ones(1, 2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="maps go down to -1"):
        energy_inside(torch.full((1, 2, 2), -1.0), masks)
    with pytest.raises(ValueError, match="tolerance is -1; give pixels"):
        pointing_game(torch.zeros(1, 2, 2), masks, -1)
    with pytest.raises(ValueError, match="there are 1 values"):
        mean_interval(torch.tensor([0.5]))
    with pytest.raises(ValueError, match=r"before is \(2,\) and after \(3,\)"):
        paired_difference(torch.zeros(2), torch.zeros(3))
