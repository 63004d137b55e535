"""The presets of detection, and a run of one as a typed value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ssl_backbones.checks import check
from ssl_backbones.evaluate.detection.box_metrics import METRICS
from ssl_backbones.evaluate.detection.detection import DetectionConfig
from ssl_backbones.evaluate.transfer import TaskRun
from ssl_backbones.recipes.settings import OptimizerConfig, ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class DetectRun(TaskRun):
    """A detector trained on images with objects and tested on others."""

    data: str = ""
    """VOC folders with commas between them, a COCO folder or file, or parquet files with a column of objects."""
    task: DetectionConfig = field(default_factory=DetectionConfig)
    column: Literal["auto", "category", "voc_category"] = "auto"
    """Field of the objects in parquet files that is their class; auto takes VOC's where there is one."""
    metric: str = "auto"
    """Average precision of boxes, voc or coco; auto takes the data's own."""
    classes: int = 0
    """Classes of the head; 0 for the data's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.metric in ("auto", *METRICS), "metric", self.metric, f"one of {', '.join(('auto', *METRICS))}")
        check(self.classes >= 0, "classes", self.classes, "at least 1, or 0 for those of the data")
        smallest, longest = self.task.smallest, self.task.longest
        check(smallest <= self.size, "task.smallest", smallest, f"at most the size, {self.size}")
        check(longest >= self.size, "task.longest", longest, f"at least the size, {self.size}")

    @property
    def same_shapes(self) -> bool:
        return False

    @property
    def title(self) -> str:
        return f"{self.protocol}, {self.task.head}, of {self.initial}"


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
