"""Fine-tuning: the whole network learns from labels, the backbone at a rate of its own.

The preset patch is Pham et al.'s (2021. https://arxiv.org/abs/2108.00475) transfer: two fully-connected layers on the
backbone, 20 epochs without augmentation. The accuracy is the last epoch's; with --judge_every, the best test's is
reported beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ssl_backbones.evaluate.classification.finetune import FinetuneConfig
from ssl_backbones.evaluate.classification.labelled_run import LabelledRun, carry, open_asked
from ssl_backbones.evaluate.classification.labelled_views import LabelledViews
from ssl_backbones.recipes.settings import OptimizerConfig, ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class Options(LabelledRun):
    """The options of fine-tuning."""

    task: FinetuneConfig = field(default_factory=FinetuneConfig)


PRESETS = {
    # Pham et al., 2021: two fully-connected layers, 20 epochs, batch 32; the rest from the code that their baselines
    # were run with: the backbone's rate is ten times the head's, and its decay by steps never comes within 20 epochs.
    # The width between the two layers is stated nowhere.
    "patch": Options(
        protocol="finetune (patch)",
        epochs=20,
        batch_size=32,
        optimizer=OptimizerConfig("adam", 1e-4, lr_rule="absolute", backbone_lr=1e-3, weight_decay=1e-5),
        schedule=ScheduleConfig("constant"),
        task=FinetuneConfig(hidden=256, views=LabelledViews(augment=False)),
    ),
}


def run(options: Options) -> dict[str, Any]:
    """The accuracy on the images asked about."""
    return carry(options, PRESETS, open_asked(options))
