"""The presets of detection, and a run of one as a typed value."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ssl_backbones.checks import check
from ssl_backbones.evaluate.detection.box_metrics import METRICS
from ssl_backbones.evaluate.detection.detection import DetectionConfig
from ssl_backbones.recipes.settings import OptimizerConfig, ScheduleConfig
from ssl_backbones.train.transfer import Transfer
from ssl_backbones.typed.words import Hidden, Positional


@dataclass(frozen=True, kw_only=True)
class DetectRun(Transfer):
    """A detector trained on images with objects and tested on others."""

    protocol: Hidden[str] = "detection"
    model: Positional[str] = ""
    """A registered name, hf-hub:org/name, or the folder of a run."""
    data: str = ""
    """VOC folders with commas between them, a COCO folder or file, or parquet files with a column of objects."""
    weights_sha256: Hidden[str] = ""
    epochs: Hidden[int] = 1
    max_steps: Hidden[int] = 0
    task: DetectionConfig = field(default_factory=DetectionConfig)
    random: bool = False
    """Random weights instead of the model's."""
    iterations: int = 24_000
    """Optimiser steps, if they are of `iteration_images`; of another batch, as many as show as many images."""
    iteration_images: int = 16
    """The batch that the iterations are of."""
    column: Literal["auto", "category", "voc_category"] = "auto"
    """Of the objects in parquet files, the field that is their class; VOC's where there is one, under auto."""
    metric: str = "auto"
    """Average precision of boxes: voc or coco; that of the data, under auto."""
    classes: int = 0
    """Classes of the head; 0 for those of the data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("iterations", "iteration_images"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        check(self.metric in ("auto", *METRICS), "metric", self.metric, f"one of {', '.join(('auto', *METRICS))}")
        check(self.classes >= 0, "classes", self.classes, "at least 1, or 0 for those of the data")
        smallest, longest = self.task.smallest, self.task.longest
        check(smallest <= self.size, "task.smallest", smallest, f"at most the size, {self.size}")
        check(longest >= self.size, "task.longest", longest, f"at least the size, {self.size}")

    @property
    def title(self) -> str:
        return f"{self.protocol}, {self.task.head}, of {self.model}{' from random weights' if self.random else ''}"

    def whole_steps(self, steps_per_epoch: int) -> int:
        """Those of its iterations, by which its length is given."""
        return self.max_steps

    def step_scaled(self, step: int) -> int:
        """A step of the preset's batch as one of this run's."""
        return max(1, round(step * self.iteration_images / self.batch_size))

    def on(self, images: int) -> DetectRun:
        """The run on so many images: its steps, milestones, warm-up and epochs by the batch that it has."""
        steps = self.step_scaled(self.iterations)
        return replace(
            self,
            max_steps=steps,
            epochs=-(-steps // max(1, images // self.batch_size)),
            schedule=replace(
                self.schedule,
                milestone_steps=tuple(map(self.step_scaled, self.schedule.milestone_steps)),
                warmup_steps=self.step_scaled(self.schedule.warmup_steps) if self.schedule.warmup_steps else 0,
            ),
        )

    def steps_sentence(self, images: int) -> str:
        """The iterations as steps of this run's batch, in words."""
        decays = ", ".join(map(str, self.schedule.milestone_steps)) or "no step"
        return (
            f"{self.iterations} iterations of {self.iteration_images} images are {self.max_steps} steps of "
            f"{self.batch_size}, {self.max_steps * self.batch_size / images:.2f} epochs of {images} images; warm-up of "
            f"{self.schedule.warmup_steps} steps, decay at {decays}"
        )


def preset(
    name: str,
    task: DetectionConfig,
    *,
    iterations: int,
    batch: int,
    lr: float,
    milestones: tuple[int, ...],
    warmup: int,
    **fields: int | str,
) -> DetectRun:
    """A run whose learning rate is `lr` at its own batch, and grows with the batch."""
    return DetectRun(
        protocol=f"detection ({name})",
        task=task,
        iterations=iterations,
        iteration_images=batch,
        batch_size=batch,
        optimizer=OptimizerConfig("sgd", lr * 256 / batch, momentum=0.9, weight_decay=1e-4, exclude_norm_and_bias=True),
        schedule=ScheduleConfig("step", milestone_steps=milestones, warmup_steps=warmup),
        **{"size": 800, **fields},  # type: ignore[arg-type]
    )


ON_VOC, ON_COCO = DetectionConfig(head="faster_c4"), DetectionConfig(head="mask_c4", classes=80, smallest=640)
PRESETS = {
    # MoCo's detectron2 configurations; on COCO the warm-up, which they leave to detectron2's default, is that. Of
    # detectron2, norms are not decayed; here biases are not either.
    "voc_24k": preset("voc_24k", ON_VOC, iterations=24_000, batch=16, lr=0.02, milestones=(18_000, 22_000), warmup=100),
    "coco_1x": preset(
        "coco_1x", ON_COCO, iterations=90_000, batch=16, lr=0.02, milestones=(60_000, 80_000), warmup=1000
    ),
    "coco_2x": preset(
        "coco_2x", ON_COCO, iterations=180_000, batch=16, lr=0.02, milestones=(120_000, 160_000), warmup=1000
    ),
    # FLAGS, section 4: MoCo's 2x on COCO with half the batch, and its VOC rescaled to a quarter of it. The milestones
    # and the warm-up on VOC are rescaled alike, which the paper leaves open.
    "flags_coco": preset(
        "flags_coco", ON_COCO, iterations=180_000, batch=8, lr=0.01, milestones=(120_000, 160_000), warmup=1000
    ),
    "flags_voc": preset(
        "flags_voc", ON_VOC, iterations=96_000, batch=4, lr=0.005, milestones=(72_000, 88_000), warmup=400
    ),
    # Ours, for two CPU cores and networks of small images.
    "small": preset(
        "small",
        DetectionConfig(
            smallest=96, longest=213, regions=32, anchors=64, test_proposals=100, width=32, precise_batches=10
        ),
        iterations=200,
        batch=8,
        lr=0.02,
        milestones=(150, 185),
        warmup=20,
        size=128,
        precision="fp32",
        layout="contiguous",
    ),
}
