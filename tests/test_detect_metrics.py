"""Average precision: by hand, against slow literal versions, and against pycocotools on the same predictions."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as runs
from pycocotools.coco import COCO as Source
from pycocotools.cocoeval import COCOeval

from ssl_backbones.evaluate.detection import box_metrics, detection_judge
from ssl_backbones.evaluate.detection.box_metrics import (
    COCO,
    COCO_POINTS,
    METRICS,
    THRESHOLDS,
    VOC,
    VOC_POINTS,
    BoxMetric,
    Instances,
    average_precisions,
    coco_hits,
    measure,
    voc_hits,
)
from ssl_backbones.evaluate.detection.packed_masks import unpacked

HEIGHT, WIDTH = 60, 80


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box_metrics, "RESAMPLES", 20)


def side(boxes: Any, labels: Any, scores: Any = None, ignored: Any = None) -> Instances:
    """Instances with masks that fill the boxes."""
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    count = len(boxes)
    masks = []
    for left, top, right, bottom in boxes.astype(int):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        mask[top:bottom, left:right] = 1
        masks.append(runs.encode(mask))
    return Instances(
        boxes,
        np.array(labels, np.int64),
        np.zeros(count) if scores is None else np.array(scores, np.float64),
        np.zeros(count, np.bool_) if ignored is None else np.array(ignored, np.bool_),
        masks,
    )


def drawn(seed: int, images: int = 10, crowds: bool = True) -> tuple[list[Instances], list[Instances]]:
    """Detections near and far from what is there, some images empty, scores with ties."""
    stream = np.random.default_rng(seed)

    def boxes(count: int, near: np.ndarray | None = None) -> np.ndarray:
        found = stream.uniform(0, 50, (count, 4))
        found[:, 2:] = found[:, :2] + stream.uniform(5, 30, (count, 2))
        if near is not None and len(near):
            close = stream.random(count) < 0.7
            found[close] = near[stream.integers(0, len(near), count)][close] + stream.normal(0, 1.5, (close.sum(), 4))
        found = np.clip(found, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        return found.astype(np.float32).astype(np.float64)

    there, found = [], []
    for _ in range(images):
        count, guesses = int(stream.integers(0, 6)), int(stream.integers(0, 15))
        ignored = stream.random(count) < (0.2 if crowds else 0)
        there.append(side(boxes(count), stream.integers(0, 3, count), ignored=ignored))
        near = boxes(guesses, there[-1].boxes)
        found.append(side(near, stream.integers(0, 3, guesses), stream.random(guesses).round(2)))
    return found, there


def cocoeval(found: list[Instances], there: list[Instances], kind: str) -> list[float]:
    """AP, AP50 and AP75 of pycocotools itself."""

    def content(sides: list[Instances]) -> dict[str, Any]:
        annotations: list[dict[str, Any]] = []
        for image, each in enumerate(sides):
            for at, (left, top, right, bottom) in enumerate(each.boxes):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image,
                        "category_id": int(each.labels[at]),
                        "bbox": [left, top, right - left, bottom - top],
                        "score": float(each.scores[at]),
                        "iscrowd": int(each.ignored[at]),
                        "segmentation": each.masks[at] if each.masks else None,
                        "area": (right - left) * (bottom - top),
                    }
                )
        images = [{"id": image, "height": HEIGHT, "width": WIDTH} for image in range(len(sides))]
        return {"images": images, "annotations": annotations, "categories": [{"id": k} for k in range(3)], "info": {}}

    with contextlib.redirect_stdout(io.StringIO()):
        sources = []
        for sides in (there, found):
            source = Source()
            source.dataset = content(sides)
            source.createIndex()
            sources.append(source)
        evaluation = COCOeval(*sources, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats[:3]]


@pytest.mark.parametrize("seed", range(6))
def test_cocos_ap_is_pycocotools_own(seed: int) -> None:
    found, there = drawn(seed)
    for kind, masks in (("bbox", False), ("segm", True)):
        expected = cocoeval(found, there, kind)
        assert 0 < expected[0] < 1
        ours = measure(found, there, 3, COCO, seed=0, masks=masks)
        assert [ours[name]["value"] for name in ("AP", "AP50", "AP75")] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", [COCO, VOC], ids=lambda metric: metric.name)
def test_the_ap_of_boxes_counts_hidden_objects_whatever_the_head(metric: BoxMetric) -> None:
    """Three objects, of which one is hidden behind another: all found but that, which masks alone do not ask for."""
    there = side([[0, 0, 20, 20], [30, 30, 50, 50], [32, 32, 48, 48]], [0, 1, 1])
    empty = runs.encode(np.zeros((HEIGHT, WIDTH), np.uint8, order="F"))
    there = replace(there, masks=[*(there.masks or [])[:2], empty])
    found = side([[0, 0, 20, 20], [30, 30, 50, 50]], [0, 1], [0.9, 0.9])
    boxes, masks = (average_precisions([found], [there], 2, metric, seed=0, masks=masks) for masks in (False, True))
    assert {name: masks[name]["value"] for name in boxes} == {name: each["value"] for name, each in boxes.items()}
    assert boxes["AP"]["value"] < 0.8
    assert masks["mask_AP"]["value"] == pytest.approx(1)


def test_vocs_ap_of_eleven_points_by_hand() -> None:
    """Three objects; of four detections the second is wrong and the fourth repeats the first.

    Recall and precision after each: 1/3, 1; 1/3, 1/2; 2/3, 2/3; 2/3, 1/2. Best precision from recall on: 1 at 0 to .3,
    2/3 at .4 to .6, 0 from .7: (4 + 3 * 2/3) / 11.
    """
    there = [side([[0, 0, 10, 10], [20, 20, 40, 40]], [0, 0]), side([[0, 0, 30, 30]], [0])]
    found = [
        side([[0, 0, 10, 10], [50, 0, 60, 10], [0, 0, 10, 10]], [0, 0, 0], [0.9, 0.8, 0.1]),
        side([[0, 0, 30, 30]], [0], [0.5]),
    ]
    numbers = measure(found, there, 1, VOC, seed=0)
    assert numbers["AP50"]["value"] == pytest.approx(6 / 11)
    assert numbers["AP"]["value"] == pytest.approx(6 / 11)
    assert measure(found, there, 1, COCO, seed=0)["AP50"]["value"] == pytest.approx((34 + 33 * 2 / 3) / 101)


def test_what_is_difficult_counts_neither_as_found_nor_as_missed() -> None:
    there = [side([[0, 0, 10, 10], [20, 20, 40, 40]], [0, 0], ignored=[True, False])]
    alone = [side([[20, 20, 40, 40]], [0], [0.5])]
    both = [side([[0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 40, 40]], [0, 0, 0], [0.9, 0.8, 0.5])]
    assert measure(alone, there, 1, VOC, seed=0)["AP"]["value"] == 1.0
    assert measure(both, there, 1, VOC, seed=0)["AP"]["value"] == 1.0


def test_an_overlap_at_the_threshold_is_right_for_coco_and_wrong_for_voc() -> None:
    half = np.array([[0.5]])
    assert voc_hits(half, np.array([False]))[0, 0] == 0
    assert coco_hits(half, np.array([False]))[0, 0] == 1


def test_voc_holds_a_detection_against_its_nearest_object_even_if_that_is_taken() -> None:
    overlap = np.array([[0.9, 0.0], [0.8, 0.7]])
    nobody = np.zeros(2, np.bool_)
    assert voc_hits(overlap, nobody)[:, 0].tolist() == [1, 0]
    assert coco_hits(overlap, nobody)[:, 0].tolist() == [1, 1]


def literal_voc(found: list[Instances], there: list[Instances], label: int, threshold: float) -> float:
    """One class's AP of eleven points, loop by loop."""
    wanted = sum(int((~truth.ignored[truth.labels == label]).sum()) for truth in there)
    listed = [
        (float(each.scores[at]), image, each.boxes[at])
        for image, each in enumerate(found)
        for at in np.argsort(-each.scores, kind="stable")
        if each.labels[at] == label
    ]
    listed.sort(key=lambda item: -item[0])
    seen: set[tuple[int, int]] = set()
    right = wrong = 0
    curve = []
    for _, image, box in listed:
        truth, best, at = there[image], -1.0, -1
        for column in range(len(truth.labels)):
            if truth.labels[column] == label:
                other = truth.boxes[column]
                width = max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
                height = max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
                areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
                overlap = width * height / (sum(areas) - width * height)
                if overlap > best:
                    best, at = overlap, column
        if best > threshold:
            if truth.ignored[at]:
                continue
            if (image, at) in seen:
                wrong += 1
            else:
                seen.add((image, at))
                right += 1
        else:
            wrong += 1
        curve.append((right / wanted, right / (right + wrong)))
    return sum(max([p for recall, p in curve if recall >= point], default=0.0) for point in VOC_POINTS) / 11


@pytest.mark.parametrize("seed", range(4))
def test_vocs_ap_is_the_slow_literal_one(seed: int) -> None:
    found, there = drawn(seed)
    numbers = measure(found, there, 3, VOC, seed=0)
    slow = np.array([[literal_voc(found, there, label, t) for t in THRESHOLDS] for label in range(3)])
    assert numbers["AP"]["value"] == pytest.approx(slow.mean())
    assert numbers["AP50"]["value"] == pytest.approx(slow[:, 0].mean())
    assert numbers["AP75"]["value"] == pytest.approx(slow[:, 5].mean())


def test_the_interval_is_seeded_holds_the_value_and_shrinks_with_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box_metrics, "RESAMPLES", 200)
    found, there = drawn(1, images=8, crowds=False)
    once = measure(found, there, 3, VOC, seed=0)["AP50"]
    assert once == measure(found, there, 3, VOC, seed=0)["AP50"]
    assert once != measure(found, there, 3, VOC, seed=1)["AP50"]
    many = measure(found * 8, there * 8, 3, VOC, seed=0)["AP50"]
    assert many["high"] - many["low"] < once["high"] - once["low"]


def test_an_image_drawn_twice_counts_as_two() -> None:
    from ssl_backbones.evaluate.detection.box_metrics import matched

    found, there = drawn(2, images=5, crowds=False)
    weights = np.array([2, 0, 1, 1, 3])
    repeated = [image for image, weight in enumerate(weights) for _ in range(weight)]
    by_weight = matched(found, there, 1, COCO).average_precision(weights, COCO_POINTS)
    twice = matched([found[p] for p in repeated], [there[p] for p in repeated], 1, COCO)
    expected = twice.average_precision(np.ones(len(repeated), np.int64), COCO_POINTS)
    # Detections of one score, and an image's copies always are, may stand in another order.
    assert by_weight == pytest.approx(expected, abs=0.05)
    assert not np.isnan(expected).any()


def test_a_class_that_is_nowhere_is_left_out_of_the_mean() -> None:
    there, found = [side([[0, 0, 10, 10]], [0])], [side([[0, 0, 10, 10], [5, 5, 9, 9]], [0, 1], [0.9, 0.9])]
    for metric in METRICS.values():
        assert measure(found, there, 3, metric, seed=0)["AP"]["value"] == pytest.approx(1.0)


def test_masks_are_pasted_one_at_a_time_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    corners = torch.rand(7, 2) * 40
    boxes, masks, size = (
        torch.cat([corners, corners + 20 * torch.rand(7, 2)], dim=1),
        torch.rand(7, 1, 28, 28),
        (48, 64),
    )
    paste = detection_judge.paste_masks_in_image
    whole = (paste(masks, boxes, size)[:, 0] >= 0.5).numpy()
    largest = []

    def watched(*given: Any) -> Any:
        largest.append(paste(*given))
        return largest[-1]

    monkeypatch.setattr(detection_judge, "paste_masks_in_image", watched)
    assert np.array_equal(unpacked(detection_judge.pasted(masks, boxes, size)), whole)
    assert [found.numel() for found in largest] == [48 * 64] * 7
    assert detection_judge.pasted(masks[:0], boxes[:0], size) == []
