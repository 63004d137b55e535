"""The presets of segmentation, and a run of one as a typed value."""

from __future__ import annotations

from dataclasses import dataclass, field

from ssl_backbones.checks import check, check_at_least
from ssl_backbones.evaluate.segmentation.segmentation import SegmentationConfig
from ssl_backbones.evaluate.transfer import TaskRun
from ssl_backbones.recipes.settings import OptimizerConfig, ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class SegmentRun(TaskRun):
    """A segmentation trained on masks and tested on others."""

    data: str = ""
    """A folder in Pascal VOC's layout, or parquet files with a column of masks."""
    task: SegmentationConfig = field(default_factory=SegmentationConfig)
    mask_column: str = "mask"
    """Column of parquet files that holds the masks."""
    train_lists: tuple[str, ...] = ("train",)
    """Lists in a VOC folder's ImageSets/Segmentation that name the training images."""
    validation_lists: tuple[str, ...] = ("val",)
    """Lists in a VOC folder's ImageSets/Segmentation that name the validation images."""
    classes: str = ""
    """voc, a json file of the classes' names, or a table in the classes.json beside the data; "" counts the masks."""
    judge_every: int = 0
    """Epochs between two tests while it trains; 0 for none but the last."""
    resamples: int = 1000
    """Draws of the validation images behind each interval."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, resamples=2, judge_every=0)
        for name in ("train_lists", "validation_lists"):
            check(len(getattr(self, name)) > 0, name, getattr(self, name), "at least one list")


PRESETS = {
    # LEWEL says: mmsegmentation, dilated FCN, output stride 8, 20k iterations, batch 16, SyncBN, poly, train_aug; its
    # learning rate was searched and is not stated. The rest is mmsegmentation's fcn_r50-d8 with schedule_20k, Pascal
    # VOC and its 2048 x 512 resize: SGD at 0.01, momentum 0.9, decay 5e-4, power 0.9; 512 channels, concatenation,
    # dropout 0.1, auxiliary head 0.4 of 256 channels; crop 512, no class above 75 %; lists train and aug.
    # Left out: its deep stem (ResNetV1c), its colour distortion, and its smallest learning rate of 1e-4.
    "voc_fcn_d8": SegmentRun(
        protocol="segmentation (voc_fcn_d8)",
        size=512,
        batch_size=16,
        iterations=20_000,
        optimizer=OptimizerConfig("sgd", 0.16, momentum=0.9, weight_decay=5e-4),
        schedule=ScheduleConfig("poly", power=0.9),
        task=SegmentationConfig(short_side=512, max_share=0.75),
        train_lists=("train", "aug"),
        classes="voc",
        lr_stated=False,
    ),
    # MoCo, appendix: stride 16, two 3x3 convolutions of 256 channels with dilation 6, BatchNorm and ReLU, then 1x1;
    # crop 513, scale 0.5 to 2, flip; 16 images, 50k iterations, learning rate 0.003 times 0.1 at 70 % and 90 %, decay
    # 1e-4; tested at the image's own size. Its momentum is not stated: 0.9, as elsewhere in the paper.
    "voc_moco": SegmentRun(
        protocol="segmentation (voc_moco)",
        size=513,
        batch_size=16,
        iterations=50_000,
        optimizer=OptimizerConfig("sgd", 0.048, momentum=0.9, weight_decay=1e-4),
        schedule=ScheduleConfig("step", milestone_steps=(35_000, 45_000)),
        task=SegmentationConfig(output_stride=16, channels=256, dilation=6, concat=False, dropout=0.0, auxiliary=0.0),
        train_lists=("train", "aug"),
        classes="voc",
    ),
    # Ours, for a CPU and networks of small images.
    "small": SegmentRun(
        protocol="segmentation (small)",
        size=96,
        batch_size=8,
        iterations=1200,
        iteration_images=8,
        optimizer=OptimizerConfig("sgd", 1.6, momentum=0.9, weight_decay=5e-4),
        schedule=ScheduleConfig("poly", warmup_steps=20),
        task=SegmentationConfig(
            channels=64, dilation=4, concat=False, dropout=0.0, auxiliary=0.0, short_side=96, max_share=0.75
        ),
    ),
}
