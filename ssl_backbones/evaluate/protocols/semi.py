"""Fine-tuning on a few labels: 1% or 10% of the images, and the whole network learns.

The presets are LEWEL's (Huang et al., 2022. https://arxiv.org/abs/2203.14898): its source reports the best of a test
every five epochs, so that and the last one are both told. Batch statistics are of all 256 images of a step; its source
takes those of the 64 images of each of 4 GPUs. Images are those that --subset names, such as SimCLR's lists, or a share
of every class, drawn by --subset_seed: the same for every run, and the 1% are among the 10%.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl_backbones.checks import check, check_seed
from ssl_backbones.data import ImageSourceError
from ssl_backbones.data.subset import as_list, at
from ssl_backbones.distributed import say
from ssl_backbones.evaluate.classification.finetune import FinetuneConfig
from ssl_backbones.evaluate.classification.labelled_run import Asked, LabelledRun, carry, open_asked
from ssl_backbones.evaluate.classification.subset import labelled_rows, listed, stratified
from ssl_backbones.evaluate.labelled import require_known
from ssl_backbones.recipes.settings import OptimizerConfig, ScheduleConfig
from ssl_backbones.runs.results import about


@dataclass(frozen=True, kw_only=True)
class Options(LabelledRun):
    """The options of semi-supervised fine-tuning."""

    task: FinetuneConfig = field(default_factory=FinetuneConfig)
    share: float = 0.01
    """Share of the images of each class to train on, at least one image, where no subset is named."""
    subset: str = ""
    """File that names the training images, one on a line."""
    subset_seed: int = 0
    """Random seed for drawing the subset; apart from the run's seed, so that runs of several seeds train on the same
    images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.share <= 1, "share", self.share, "above 0 and at most 1")
        check_seed("subset_seed", self.subset_seed)


ONE = Options(
    protocol="semi (lewel_1pct)",
    share=0.01,
    epochs=50,
    batch_size=256,
    # The paper is silent on the decay; 1e-4 is what its code runs with.
    optimizer=OptimizerConfig("sgd", 1.0, momentum=0.9, backbone_lr=1e-4, weight_decay=1e-4),
    schedule=ScheduleConfig("step", milestones=(30, 40)),
    judge_every=5,
    source_reports="best",
)
PRESETS = {
    "lewel_1pct": ONE,
    "lewel_10pct": replace(
        ONE,
        protocol="semi (lewel_10pct)",
        share=0.1,
        optimizer=replace(ONE.optimizer, lr=0.1, backbone_lr=0.01),
    ),
}


def run(options: Options) -> dict[str, Any]:
    """The accuracies on the images asked about."""
    asked = few(options, open_asked(options))
    subset = subset_of(options, asked)
    say(
        f"Learning from {subset['images']} of {len(asked.whole)} images ({subset['kind']}), of {subset['classes']} "
        "classes."
    )
    return carry(options, PRESETS, asked, lambda images: {"subset": subset_of(options, images)})


def subset_of(options: Options, asked: Asked) -> dict[str, Any]:
    """The images to learn from, as results.json tells of them."""
    names = as_list(asked.images)
    return {
        "kind": "the list" if options.subset else f"{options.share:g} of every class, seed {options.subset_seed}",
        "images": len(asked.rows),
        "classes": len(set(asked.images.labels.tolist())) if asked.images.labels is not None else 0,
        "sha256": hashlib.sha256(names).hexdigest(),
        "of": about(asked.whole, options.data),
    }


def few(options: Options, asked: Asked) -> Asked:
    """The same images, but for those to learn from that are not of the subset."""
    if not options.subset:
        labels = at(asked.whole, asked.rows).labels
        assert labels is not None
        return replace(asked, rows=asked.rows[stratified(labels, options.share, options.subset_seed)])
    rows = listed(asked.whole, Path(options.subset))
    labelled = set(labelled_rows(asked.whole).tolist())
    bare = [asked.whole.keys[int(row)] for row in rows if int(row) not in labelled]
    if bare:
        raise ImageSourceError(f"{options.subset} names {bare[0]!r}, which has no label: label it, or leave it out")
    labels = at(asked.whole, rows).labels
    assert labels is not None
    try:
        require_known(asked.validation, asked.whole, np.unique(labels))
    except ImageSourceError as error:
        raise ImageSourceError(f"{options.subset}: {error}") from error
    return replace(asked, rows=rows)
