"""A linear probe on the frozen backbone: one layer learns, batch statistics stay as they are.

Presets: moco_v2 (He et al., 2020), lewel_m and lewel_b (Huang et al., 2022), flags, and patch (the one-layer probe that
Pham et al.'s baselines were measured with), which shows every image the same way each time, so that features are
extracted once. The accuracy is the last epoch's; with --judge_every, as in lewel_b and flags, the best test's is
reported beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ssl_backbones.evaluate.classification.labelled_run import LabelledRun, carry, open_asked, train_labelled
from ssl_backbones.evaluate.classification.labelled_views import LabelledViews
from ssl_backbones.evaluate.classification.linear import LinearConfig
from ssl_backbones.evaluate.classification.on_features import train_on_features
from ssl_backbones.recipes.settings import OptimizerConfig, ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class Options(LabelledRun):
    """The options of a linear probe."""

    task: LinearConfig = field(default_factory=LinearConfig)


MOCO = Options(
    protocol="linear (moco_v2)",
    epochs=100,
    batch_size=256,
    optimizer=OptimizerConfig("sgd", 30.0, momentum=0.9, weight_decay=0.0),
    schedule=ScheduleConfig("step", milestones=(60, 80)),
)
PRESETS = {
    # He et al., 2020, section 4.1, and the settings of MoCo v2's repository.
    "moco_v2": MOCO,
    # Huang et al., 2022, section 4.1: LARS, 90 epochs, batch 4096, learning rate 0.2 per 256, no decay, cosine. There
    # is no code; whether the bias is adapted, and how often the cosine moves, is not stated. It is, and by the epoch.
    "lewel_m": Options(
        protocol="linear (lewel_m)",
        epochs=90,
        batch_size=4096,
        optimizer=OptimizerConfig("lars", 0.2, momentum=0.9, weight_decay=0.0),
        schedule=ScheduleConfig("cosine", per="epoch"),
    ),
    # Huang et al., 2022, section 4.1 and their code, which tests every 5 epochs and reports the best.
    "lewel_b": Options(
        protocol="linear (lewel_b)",
        epochs=50,
        batch_size=256,
        optimizer=OptimizerConfig("sgd", 0.4, momentum=0.9, weight_decay=0.0),
        schedule=ScheduleConfig("step", milestones=(30, 40)),
        judge_every=5,
        source_reports="best",
    ),
    # FLAGS: MoCo's protocol, of which "the top accuracy is shown": the best epoch's.
    "flags": replace(MOCO, protocol="linear (flags)", judge_every=1, source_reports="best"),
    # The code that Pham et al.'s baselines were run with: Adam, no decay, no augmentation, torch's own first weights.
    "patch": Options(
        protocol="linear (patch)",
        epochs=100,
        batch_size=32,
        optimizer=OptimizerConfig("adam", 1e-3, lr_rule="absolute", weight_decay=0.0),
        schedule=ScheduleConfig("constant"),
        task=LinearConfig(head_std=None, views=LabelledViews(augment=False)),
        log_every=100,
    ),
}


def run(options: Options) -> dict[str, Any]:
    """The accuracy on the validation images."""
    train = train_labelled if options.task.views.augment else train_on_features
    return carry(options, PRESETS, open_asked(options), train=train)
