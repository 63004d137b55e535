"""The test of a segmentation: every validation image at its original size, in one confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ssl_backbones.data import Images, UnreadableImageError, by_content
from ssl_backbones.data.placement import to_device
from ssl_backbones.distributed import gather, made_everywhere, rank, world_size
from ssl_backbones.evaluate.segmentation.iou import (
    Overlaps,
    confusion_of,
    estimates,
    marginals,
    mean_iou,
    pixel_accuracy,
)
from ssl_backbones.evaluate.segmentation.masks import Scenes
from ssl_backbones.evaluate.segmentation.scene_views import SceneBatches
from ssl_backbones.evaluate.segmentation.segment_run import SegmentRun
from ssl_backbones.evaluate.segmentation.segmentation import Segmentation
from ssl_backbones.evaluate.transfer import Learnt
from ssl_backbones.metrics import Interval
from ssl_backbones.runs.progress import counted
from ssl_backbones.runs.results import as_share
from ssl_backbones.train.bench import Bench
from ssl_backbones.train.embed import batches, evaluated
from ssl_backbones.train.judge import Measured, Trained
from ssl_backbones.train.switches import any_shape

SOME = 5
"""Classes shown at each end of the list."""


class SegmentationJudge:
    """Tests a segmentation while it trains and at its end, and writes what was found at the end."""

    at_start = False

    def __init__(
        self,
        run: SegmentRun,
        method: Segmentation,
        validation: Scenes,
        classes: Sequence[str],
        unseen: Sequence[str] = (),
        altered: Mapping[str, Any] | None = None,
    ) -> None:
        """`altered` are the fields in which the run differs from its preset."""
        self.run, self.method, self.validation, self.altered = run, method, validation, dict(altered or {})
        self.classes, self.unseen, self.every = list(classes), list(unseen), run.judge_every
        self.overlaps: Overlaps | None = None

    def question(self, name: Callable[[Images], str] = by_content) -> dict[str, Any]:
        """The identity of an answer: equal for answers that may be compared."""
        return {"validation": name(self.validation), "classes": self.classes}

    def judge(self, bench: Bench) -> Measured:
        """The mean IoU and the pixel accuracy now."""
        self.overlaps = found = overlaps(
            self.method,
            self.validation,
            bench.device,
            workers=bench.workers,
            autocast=bench.autocast(),
        )
        total = found.images.sum(axis=0)
        return Measured({"miou": float(mean_iou(total)), "val_pixel_accuracy": float(pixel_accuracy(total))})

    def save_results(self, trained: Trained) -> str:
        """Write results.json and the counts of each image, and return the summary."""
        run, found = self.run, self.overlaps
        assert found is not None
        miou, accuracy, each = estimates(found, run.resamples, run.seed)
        numbers = {"miou": as_number(miou), "pixel_accuracy": as_number(accuracy)} | {
            f"iou/{name}": as_number(value) for name, value in zip(self.classes, each, strict=True) if value is not None
        }
        per_image = trained.folder.path / "per_image.npz"
        np.savez_compressed(per_image, pixels=found.images, keys=np.array(list(self.validation.keys)))
        Learnt.by(trained).save(
            run,
            validation=self.validation,
            numbers=numbers,
            more={
                "altered": self.altered,
                "interval": f"2.5th and 97.5th percentiles of {run.resamples} resamples, seed {run.seed}",
                "classes": self.classes,
                "absent": [name for name, value in zip(self.classes, each, strict=True) if value is None],
                "not_in_training": self.unseen,
                "confusion": found.confusion.tolist(),
            },
        )
        return self.summary(numbers, str(trained.folder.path))

    def summary(self, numbers: dict[str, dict[str, float]], path: str) -> str:
        """The results in words."""
        each = sorted(
            ((name.partition("/")[2], number) for name, number in numbers.items() if name.startswith("iou/")),
            key=lambda item: -item[1]["value"],
        )
        lines = [
            f"Mean IoU of {len(each)} classes on {len(self.validation)} images: {as_share(numbers['miou'])}",
            f"Pixel accuracy: {as_share(numbers['pixel_accuracy'])}",
            *(f"  {name:<16} {as_share(number)}" for name, number in each[:SOME]),
            *([f"  and {len(each) - SOME} classes more"] if len(each) > SOME else []),
            f"All of it is in {path}/results.json",
        ]
        return "\n".join(lines)


def as_number(found: Interval) -> dict[str, float]:
    """The value and the ends of its interval, without those where no resample gave a value."""
    return {name: number for name, number in asdict(found).items() if np.isfinite(number)}


@torch.no_grad()
def overlaps(
    method: Segmentation,
    scenes: Scenes,
    device: torch.device,
    *,
    workers: int = 0,
    autocast: AbstractContextManager[Any] | None = None,
) -> Overlaps:
    """Segment the scenes, in every process: each image whole, its scores brought to its own size.

    Processes share out the images, and all predict with the first one's batch statistics. An error in one, such as
    UnreadableImageError for an image that cannot be read, is raised in all.
    """
    with evaluated(method), autocast or nullcontext(), any_shape():
        images, confusion = made_everywhere(lambda: own_overlaps(method, scenes, device, workers))
    everyone = gather(images).unflatten(0, (world_size(), -1)).transpose(0, 1).flatten(0, 1)[: len(scenes)]
    total = gather(confusion[None]).sum(dim=0)
    return Overlaps(total.cpu().numpy(), everyone.cpu().numpy())


def own_overlaps(
    method: Segmentation, scenes: Scenes, device: torch.device, workers: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The counts of this process's share of n scenes, and their confusion matrix (C, C), of C classes.

    Those of images (n, 3, C) are zeros where it has one image fewer than others. UnreadableImageError for an image that
    cannot be read.
    """
    classes = method.config.classes
    mine = np.arange(rank(), len(scenes), world_size())
    confusion = torch.zeros(classes, classes, dtype=torch.long, device=device)
    images = torch.zeros(-(-len(scenes) // world_size()), 3, classes, dtype=torch.long, device=device)
    dataset = SceneBatches(scenes, method.whole(), seed=0)
    for row, batch in enumerate(counted(batches(dataset, mine, 1, workers), len(mine), "testing")):
        if batch.unreadable:
            raise UnreadableImageError(next(iter(batch.unreadable.values())))
        image, mask = dataset.on_device(to_device(batch.content, device))
        predicted = method.scores(image, mask.shape[1:]).argmax(dim=1)
        one = confusion_of(predicted, mask, classes)
        confusion += one
        images[row] = marginals(one)
    return images, confusion
