"""Mean IoU: torchmetrics' number, and an interval that a loop over resamples finds as well."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssl_backbones.evaluate.segmentation.iou import (
    Overlaps,
    confusion_of,
    estimates,
    iou,
    marginals,
    mean_iou,
    pixel_accuracy,
    resampled,
)
from ssl_backbones.evaluate.segmentation.mask_values import IGNORED
from ssl_backbones.evaluate.segmentation.segmentation_judge import as_number


def maps(seed: int, classes: int, count: int = 3, side: int = 12) -> list[tuple[Tensor, Tensor]]:
    """Predictions and masks, right two times out of three, with a part ignored; the last class is in neither."""
    stream = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        true = stream.integers(0, classes - 1, (side, side + 1))
        predicted = np.where(stream.random(true.shape) < 2 / 3, true, stream.integers(0, classes - 1, true.shape))
        true = np.where(stream.random(true.shape) < 0.1, IGNORED, true)
        found.append((torch.from_numpy(predicted), torch.from_numpy(true)))
    return found


def overlaps_of(pairs: list[tuple[Tensor, Tensor]], classes: int) -> Overlaps:
    each = [confusion_of(predicted, true, classes) for predicted, true in pairs]
    return Overlaps(sum(each).numpy(), torch.stack([marginals(one) for one in each]).numpy())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(3, 9))
def test_it_is_torchmetrics_jaccard_index(seed: int, classes: int) -> None:
    from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

    pairs = maps(seed, classes)
    oracle = MulticlassJaccardIndex(classes, ignore_index=IGNORED)
    each = MulticlassJaccardIndex(classes, ignore_index=IGNORED, average="none")
    right = MulticlassAccuracy(classes, ignore_index=IGNORED, average="micro")
    for predicted, true in pairs:
        for metric in (oracle, each, right):
            metric.update(predicted[None], true[None])
    total = overlaps_of(pairs, classes).images.sum(axis=0)
    assert float(mean_iou(total)) == pytest.approx(float(oracle.compute()), abs=1e-6)
    assert float(pixel_accuracy(total)) == pytest.approx(float(right.compute()), abs=1e-6)
    np.testing.assert_allclose(np.nan_to_num(iou(total)), each.compute().numpy(), atol=1e-6)


def test_a_small_case_by_hand() -> None:
    true = torch.tensor([[0, 0, 1, IGNORED], [1, 1, 0, 2]])
    predicted = torch.tensor([[0, 1, 1, 3], [1, 0, 0, 1]])
    confusion = confusion_of(predicted, true, 4)
    assert confusion.tolist() == [[2, 1, 0, 0], [1, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    pixels = marginals(confusion).numpy()
    np.testing.assert_allclose(iou(pixels), [2 / 4, 2 / 5, 0, np.nan])
    assert float(mean_iou(pixels)) == pytest.approx((0.5 + 0.4 + 0) / 3)  # the fourth class is nowhere
    assert float(pixel_accuracy(pixels)) == pytest.approx(4 / 7)


def test_one_matrix_over_the_data_set_is_no_mean_over_images() -> None:
    pairs = maps(0, 4, count=2, side=4)
    overlaps = overlaps_of(pairs, 4)
    np.testing.assert_array_equal(overlaps.images.sum(axis=0), marginals(torch.from_numpy(overlaps.confusion)))
    assert float(mean_iou(overlaps.images.sum(axis=0))) != pytest.approx(float(mean_iou(overlaps.images).mean()))


def test_nothing_known_is_no_number() -> None:
    assert math.isnan(float(mean_iou(np.zeros((3, 5), int))))
    assert math.isnan(float(pixel_accuracy(np.zeros((3, 5), int))))


def test_intervals_are_those_of_a_loop() -> None:
    classes, resamples = 5, 150
    overlaps = overlaps_of(maps(7, classes, count=11), classes)
    miou, accuracy, each = estimates(overlaps, resamples, seed=4)
    stream, drawn = np.random.default_rng(4), []
    for rows in (100, 50):
        for weights in stream.multinomial(11, [1 / 11] * 11, size=rows):
            picked = np.concatenate([overlaps.images[[n] * w] for n, w in enumerate(weights) if w])
            assert len(picked) == 11
            drawn.append(picked.sum(axis=0))
    ious = [[both / (p + t - both) if p + t else math.nan for both, p, t in one.T] for one in drawn]
    means = [np.nanmean(one) for one in ious]
    assert (miou.low, miou.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    rates = [one[0].sum() / one[2].sum() for one in drawn]
    assert (accuracy.low, accuracy.high) == pytest.approx(tuple(np.percentile(rates, [2.5, 97.5])))
    assert each[2] is not None
    assert (each[2].low, each[2].high) == pytest.approx(tuple(np.percentile([one[2] for one in ious], [2.5, 97.5])))
    assert each[classes - 1] is None
    assert miou.low <= miou.value <= miou.high


def test_the_same_seed_draws_the_same_images() -> None:
    images = overlaps_of(maps(1, 4, count=6), 4).images
    np.testing.assert_array_equal(resampled(images, 30, 5), resampled(images, 30, 5))
    assert not np.array_equal(resampled(images, 30, 5), resampled(images, 30, 6))
    alike = np.repeat(images[:1], 6, axis=0)
    np.testing.assert_array_equal(resampled(alike, 3, 0), np.repeat(6 * images[:1], 3, axis=0))


def test_a_class_of_one_image_has_an_interval_of_the_draws_that_hold_it() -> None:
    images = np.zeros((4, 3, 2), int)
    images[:, :, 0] = 10
    images[0, :, 1] = (5, 10, 10)
    miou, _, each = estimates(Overlaps(np.zeros((2, 2), int), images), 200, seed=0)
    assert each[1] is not None
    assert (each[1].low, each[1].value, each[1].high) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert (miou.value, miou.high) == pytest.approx(((1 + 1 / 3) / 2, 1.0))


def test_a_class_that_no_draw_holds_has_its_value_alone() -> None:
    images = np.zeros((4, 3, 2), int)
    images[:, :, 0] = images[0, :, 1] = 10
    found = [estimates(Overlaps(np.zeros((2, 2), int), images), 2, seed)[2][1] for seed in range(40)]
    numbers = [as_number(each) for each in found if each is not None]
    json.dumps(numbers, allow_nan=False)
    assert {"value": 1.0} in numbers
    assert {"value": 1.0, "low": 1.0, "high": 1.0} in numbers
