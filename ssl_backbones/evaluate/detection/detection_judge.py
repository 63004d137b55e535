"""The test of a detector on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from ssl_backbones.data import BatchDataset, Images, Request, Unreadable, by_content
from ssl_backbones.data.placement import to_device
from ssl_backbones.distributed import gather_objects, rank, world_size
from ssl_backbones.evaluate.detection.annotations import AnnotatedImages
from ssl_backbones.evaluate.detection.box_metrics import (
    METRICS,
    RESAMPLES,
    BoxMetric,
    Instances,
    average_precisions,
)
from ssl_backbones.evaluate.detection.box_views import ResizeFlip
from ssl_backbones.evaluate.detection.detect_run import DetectRun
from ssl_backbones.evaluate.detection.detection import Detection
from ssl_backbones.evaluate.detection.packed_masks import Runs, packed
from ssl_backbones.evaluate.detection.precise_bn import precise_statistics
from ssl_backbones.evaluate.transfer import Learnt
from ssl_backbones.runs.results import as_share
from ssl_backbones.train.bench import Bench
from ssl_backbones.train.embed import batches
from ssl_backbones.train.judge import Measured, Trained

Number = dict[str, float]


@final
class ValidationBatches(BatchDataset):
    """Batches of images with what each measures and which it is; one that cannot be read is left out."""

    def __init__(self, images: AnnotatedImages, transform: ResizeFlip) -> None:
        super().__init__(images, transform, 0)

    def content(self, request: Request, unreadable: dict[str, str]) -> tuple[list[Tensor], list[tuple[int, int, int]]]:
        """Levels (3, H, W), uint8, of each image that can be read, and the row, width and height of each."""
        rows, images = self.read_all(request, unreadable)
        own = zip(request.indices.tolist(), rows, images, strict=True)
        read = [(index, image) for index, row, image in own if row == index]
        scaling = self.transform.draw(self.seed, 0, np.array([index for index, _ in read], np.int64))
        levels = self.transform.on_host([image for _, image in read], scaling)
        return levels, [(index, *image.size) for index, image in read]

    def on_device(self, content: Any) -> Any:
        """Images with their sizes, and the number, width and height of each."""
        levels, origins = content
        return self.transform.on_device(levels) if levels else None, origins


class DetectionJudge:
    """Tests a detector once, when it is trained, and writes what was found."""

    every = 0
    at_start = False

    def __init__(
        self,
        run: DetectRun,
        images: AnnotatedImages,
        validation: AnnotatedImages,
        altered: Mapping[str, Any] | None = None,
    ) -> None:
        """`altered` are the fields in which the run differs from its preset."""
        self.run, self.training, self.images, self.altered = run, images, validation, dict(altered or {})
        self.metric = metric_of(run, validation)
        self.numbers: dict[str, Number] = {}
        self.unreadable = Unreadable(len(validation), run.unreadable_share)

    def question(self, name: Callable[[Images], str] = by_content) -> dict[str, Any]:
        """The identity of an answer, as JSON: equal for answers that may be compared."""
        return {"metric": self.metric.name, "images": name(self.images)}

    def judge(self, bench: Bench) -> Measured:
        """AP, AP50 and AP75 with statistics taken anew, the same in every process."""
        method = bench.method
        assert isinstance(method, Detection)
        with precise_statistics(method, bench.training_batches(method.config.precise_batches)):
            found = self.find(method, bench)
        there = {index: truth(self.images, index, method.config.with_masks) for index in sorted(found)}
        self.numbers = average_precisions(
            [found[index] for index in there],
            list(there.values()),
            len(self.images.classes),
            self.metric,
            seed=self.run.seed,
            masks=method.config.with_masks,
        )
        return Measured({name: number["value"] for name, number in self.numbers.items()})

    def save_results(self, trained: Trained) -> str:
        """Write results.json and return the summary."""
        run, path = self.run, trained.folder.path
        Learnt.by(trained).save(
            run,
            validation=self.images,
            numbers=self.numbers,
            more={
                "altered": self.altered,
                "metric": self.metric.title,
                "interval": f"2.5th and 97.5th percentiles of {RESAMPLES} resamples of the images, seed {run.seed}",
                "classes": list(self.training.classes),
                "boxes_left_out": {"data": self.training.dropped, "validation": self.images.dropped},
                "unreadable": sorted({*trained.unreadable, *self.unreadable.reasons}),
            },
        )
        lines = [f"  {name:<10} {as_share(found)}" for name, found in self.numbers.items()]
        return "\n".join([f"{self.metric.title}, {len(self.images)} images:", *lines, f"Left in {path}/results.json"])

    def find(self, method: Detection, bench: Bench) -> dict[int, Instances]:
        """Detect the objects of each image that can be read, by its row; the processes share the images.

        They are shown one by one: beside a larger image one is padded further, and what is found in it changes.
        """
        dataset = ValidationBatches(self.images, method.test_transform(bench.size))
        mine = np.arange(rank(), len(self.images), world_size())
        found: dict[int, Instances] = {}
        left_out: dict[str, str] = {}
        for batch in batches(dataset, mine, 1, bench.workers):
            left_out |= batch.unreadable
            shown, origins = dataset.on_device(to_device(batch.content, bench.device))
            if not origins:
                continue
            with bench.autocast():
                detections = method.find(*shown)
            for detection, size, (index, width, height) in zip(detections, shown[1], origins, strict=True):
                found[index] = restored(detection, size, (height, width))
        for each in gather_objects(left_out):
            self.unreadable.add(each)
        for share in gather_objects(found):
            found |= share
        return found


def metric_of(run: DetectRun, validation: AnnotatedImages) -> BoxMetric:
    """The average precision of boxes that the run names, or the one of its validation images."""
    return METRICS[validation.metric if run.metric == "auto" else run.metric]


def restored(detection: dict[str, torch.Tensor], size: tuple[int, int], original: tuple[int, int]) -> Instances:
    """Detections in an image of one height and width, brought to another."""
    scale = torch.tensor([original[1] / size[1], original[0] / size[0]] * 2, device=detection["boxes"].device)
    boxes = detection["boxes"].float() * scale
    masks = None
    if "masks" in detection:
        masks = pasted(detection["masks"].cpu(), boxes.cpu(), original)
    return Instances(
        boxes.double().cpu().numpy(),
        detection["labels"].cpu().numpy() - 1,
        detection["scores"].double().cpu().numpy(),
        np.zeros(len(boxes), np.bool_),
        masks,
    )


def pasted(masks: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> list[Runs]:
    """Masks (N, 1, M, M) at boxes (N, 4) in an image of that height and width; one at a time, as each is that large."""
    found: list[Runs] = []
    for mask, box in zip(masks.split(1), boxes.split(1), strict=True):
        whole = paste_masks_in_image(mask, box, size)[:, 0] >= 0.5
        found += packed(whole.numpy().astype(np.uint8))
    return found


def truth(images: AnnotatedImages, index: int, with_masks: bool) -> Instances:
    """The objects of an image."""
    objects, masks = images.objects[index], images.all_masks(index) if with_masks else None
    return Instances(
        objects.boxes.astype(np.float64),
        objects.labels,
        np.zeros(len(objects)),
        objects.ignored,
        None if masks is None else packed(masks),
    )
