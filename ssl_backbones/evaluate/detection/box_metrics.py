"""Average precision of detections, VOC's and COCO's, and how sure either is.

Everingham et al., 2010 (VOC, eleven points). https://doi.org/10.1007/s11263-009-0275-4
Lin et al., 2014 (COCO, a hundred and one). https://arxiv.org/abs/1405.0312
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_backbones.evaluate.detection.packed_masks import Runs
from ssl_backbones.metrics import percentile_interval, resampled_counts

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Overlaps at which a detection counts as right."""
AT = {"AP50": 0, "AP75": 5}
VOC_POINTS = np.arange(0.0, 1.1, 0.1)
COCO_POINTS = np.linspace(0.0, 1.0, 101)
RESAMPLES = 200


@dataclass(frozen=True)
class Instances:
    """The N objects that were detected in an image, or those that are annotated there."""

    boxes: NDArray[np.float64]
    """(N, 4)"""
    labels: NDArray[np.int64]
    """(N,)"""
    scores: NDArray[np.float64]
    """(N,) confidences of detections; of annotated objects, anything."""
    ignored: NDArray[np.bool_]
    """(N,) annotated objects that count neither as found nor as missed; of detections, anything."""
    masks: list[Runs] | None = None

    def drawn(self) -> Instances:
        """Those of annotated objects with masks that have a pixel to show."""
        from pycocotools import mask as runs

        masks = self.masks or []
        kept = [at for at, mask in enumerate(masks) if runs.area(mask)]
        arrays = {name: getattr(self, name)[kept] for name in ("boxes", "labels", "scores", "ignored")}
        return replace(self, **arrays, masks=[masks[at] for at in kept])


@dataclass(frozen=True)
class Matches:
    """A class's D detections in all images, held against what is there."""

    image: NDArray[np.int64]
    """(D,)"""
    score: NDArray[np.float64]
    """(D,)"""
    hit: NDArray[np.int8]
    """(D, T): 1 where right, 0 where wrong, -1 where it counts as neither, at each threshold."""
    there: NDArray[np.int64]
    """(images,): objects to be found."""

    def average_precision(self, weights: NDArray[np.int64], points: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean over recalls `points` of the best precision from there on, (T,), each image counted as often as its
        weight (images,) says; NaN where nothing is to be found."""
        total = weights @ self.there
        if total == 0:
            return np.full(len(THRESHOLDS), np.nan)
        order = np.argsort(-self.score, kind="stable")
        weight = weights[self.image[order]][:, None]
        right = np.cumsum(weight * (self.hit[order] == 1), axis=0)
        wrong = np.cumsum(weight * (self.hit[order] == 0), axis=0)
        recall = right / total
        precision = right / np.maximum(right + wrong, 1)
        best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        best = np.vstack([best, np.zeros(len(THRESHOLDS))])
        reached = [np.searchsorted(recall[:, at], points, side="left") for at in range(len(THRESHOLDS))]
        return np.array([best[rows, at].mean() for at, rows in enumerate(reached)])


Shapes = Sequence[dict[str, Any]] | NDArray[np.float64]
"""Masks as pycocotools encodes them, or boxes (N, 4)."""


def overlaps(found: Shapes, there: Shapes, crowd: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Intersection over union (N, M) of boxes or masks; over the detection alone where what is there is a crowd."""
    from pycocotools import mask as runs

    if not len(found) or not len(there):
        return np.zeros((len(found), len(there)))
    if isinstance(found[0], dict):
        return np.asarray(runs.iou(list(found), list(there), crowd.astype(np.uint8)))
    first, second = (np.array(boxes, np.float64) for boxes in (found, there))
    wide = [np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]) for boxes in (first, second)]
    return np.asarray(runs.iou(*wide, crowd.astype(np.uint8)))


def voc_hits(overlap: NDArray[np.float64], ignored: NDArray[np.bool_]) -> NDArray[np.int8]:
    """Outcome (D, T) of D detections, the surest first: each is matched with the object (M,) it overlaps most
    with, which counts once and only beyond the threshold; on a difficult one it counts as neither."""
    hit = np.zeros((len(overlap), len(THRESHOLDS)), np.int8)
    if not overlap.shape[1]:
        return hit
    nearest = overlap.argmax(axis=1)
    for at, threshold in enumerate(THRESHOLDS):
        taken = np.zeros(overlap.shape[1], np.bool_)
        for row, column in enumerate(nearest):
            if overlap[row, column] > threshold:
                hit[row, at] = -1 if ignored[column] else int(not taken[column])
                taken[column] = True
    return hit


def coco_hits(overlap: NDArray[np.float64], ignored: NDArray[np.bool_]) -> NDArray[np.int8]:
    """The same by COCO's rule: each takes the object that it overlaps most with among those not taken; a crowd, only
    where there is no other, and as often as one likes."""
    hit = np.zeros((len(overlap), len(THRESHOLDS)), np.int8)
    for at, threshold in enumerate(THRESHOLDS):
        taken = np.zeros(overlap.shape[1], np.bool_)
        for row, each in enumerate(overlap):
            for group in (~ignored & ~taken, ignored):
                near = np.where(group, each, -1.0)
                if near.size and near.max() >= min(threshold, 1 - 1e-10):
                    # Among equals COCO takes the last.
                    column = near.size - 1 - int(near[::-1].argmax())
                    taken[column] = True
                    hit[row, at] = -1 if ignored[column] else 1
                    break
    return hit


@dataclass(frozen=True)
class BoxMetric:
    """A benchmark's average precision: how detections are matched, and the recalls that precision is averaged over."""

    name: str
    """As --metric and annotations call it."""
    title: str
    hits: Callable[[NDArray[np.float64], NDArray[np.bool_]], NDArray[np.int8]]
    """Overlaps (D, M) and the ignored among M objects to the outcome (D, T) of each detection."""
    points: NDArray[np.float64]
    """Recalls."""
    most: int | None = None
    """Detections of an image and class that are looked at, the surest; None for all."""
    crowds: bool = False
    """Take the overlap with an ignored object over the detection alone: it is a crowd."""


VOC = BoxMetric("voc", "VOC's AP of eleven points", voc_hits, VOC_POINTS)
COCO = BoxMetric("coco", "COCO's AP", coco_hits, COCO_POINTS, most=100, crowds=True)
"""That of masks, too."""
METRICS = {metric.name: metric for metric in (VOC, COCO)}


def require_pycocotools() -> None:
    """ValueError where the library is missing that overlaps are computed by."""
    if find_spec("pycocotools") is None:
        raise ValueError(
            "pycocotools, which detections are judged by, is not installed: pip install 'ssl-backbones[eval]'"
        )


def matched(
    found: Sequence[Instances], there: Sequence[Instances], label: int, metric: BoxMetric, masks: bool = False
) -> Matches:
    """A class's detections in all images, matched with the annotated objects by the rule of a metric."""
    images, scores, hits = [], [], [np.zeros((0, len(THRESHOLDS)), np.int8)]
    count = np.zeros(len(there), np.int64)
    for image, (each, truth) in enumerate(zip(found, there, strict=True)):
        rows = np.flatnonzero(each.labels == label)
        rows = rows[np.argsort(-each.scores[rows], kind="stable")][: metric.most]
        columns = np.flatnonzero(truth.labels == label)
        ignored = truth.ignored[columns]
        count[image] = (~ignored).sum()
        shown, drawn = (
            [side.masks[at] for at in wanted] if masks and side.masks is not None else side.boxes[wanted]
            for side, wanted in ((each, rows), (truth, columns))
        )
        hits.append(metric.hits(overlaps(shown, drawn, ignored & metric.crowds), ignored))
        images.append(np.full(len(rows), image))
        scores.append(each.scores[rows])
    return Matches(np.concatenate(images), np.concatenate(scores), np.concatenate(hits), count)


def summary(precision: NDArray[np.float64]) -> dict[str, float]:
    """AP, AP50 and AP75 of the precisions (K, T) of classes that can be found; NaN where there is none."""
    known = precision[~np.isnan(precision).any(axis=1)]
    if not len(known):
        return dict.fromkeys(("AP", *AT), float("nan"))
    return {"AP": float(known.mean())} | {name: float(known[:, at].mean()) for name, at in AT.items()}


def measure(
    found: Sequence[Instances],
    there: Sequence[Instances],
    classes: int,
    metric: BoxMetric,
    *,
    seed: int,
    masks: bool = False,
) -> dict[str, dict[str, float]]:
    """AP, AP50 and AP75 as value, low and high: the 95% interval over images drawn anew.

    The interval is the middle 95% of RESAMPLES draws of as many images, with replacement; classes that a draw has none
    of are left out of its mean, as those that the images have none of are.
    """
    points = metric.points
    matches = [matched(found, there, label, metric, masks) for label in range(classes)]
    whole = np.ones(len(there), np.int64)
    value = summary(np.array([each.average_precision(whole, points) for each in matches]))
    present = [each for each in matches if each.there.any()]
    resampled = [
        summary(np.array([each.average_precision(weights, points) for each in present]).reshape(-1, len(THRESHOLDS)))
        for weights in resampled_counts(len(there), RESAMPLES, seed)
    ]
    return {
        name: asdict(percentile_interval(value[name], np.array([each[name] for each in resampled]))) for name in value
    }


def average_precisions(
    found: Sequence[Instances],
    there: Sequence[Instances],
    classes: int,
    metric: BoxMetric,
    *,
    seed: int,
    masks: bool,
) -> dict[str, dict[str, float]]:
    """AP, AP50 and AP75 of boxes and, by COCO's rule, of masks as mask_AP and so on, each with its interval.

    Masks are asked of the objects that have a pixel to show, boxes of all.
    """
    numbers = measure(found, there, classes, metric, seed=seed)
    if masks:
        drawn = measure(found, [each.drawn() for each in there], classes, COCO, seed=seed, masks=True)
        numbers |= {f"mask_{name}": number for name, number in drawn.items()}
    return numbers
