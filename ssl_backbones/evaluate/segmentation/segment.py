"""A segmentation trained from a backbone and tested: what is found is left in the run's folder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ssl_backbones.data import ImageSourceError, require_batch, say_copies
from ssl_backbones.distributed import first_decides, say
from ssl_backbones.evaluate.learning_rates import Division, train_at_rates
from ssl_backbones.evaluate.segmentation.fcn import dilated
from ssl_backbones.evaluate.segmentation.mask_values import IGNORED
from ssl_backbones.evaluate.segmentation.masks import Scenes, ScenesAt, open_scenes
from ssl_backbones.evaluate.segmentation.segment_run import PRESETS, SegmentRun
from ssl_backbones.evaluate.segmentation.segmentation import Segmentation
from ssl_backbones.evaluate.segmentation.segmentation_judge import SegmentationJudge
from ssl_backbones.evaluate.segmentation.survey import class_names, require_known, survey
from ssl_backbones.evaluate.transfer import altered, building
from ssl_backbones.models.backbone import weights_sha256
from ssl_backbones.train.processes import meet
from ssl_backbones.train.run import train_run


def segment(run: SegmentRun) -> None:
    """Train a segmentation as the run says, from where it was left, test it, and write results.json.

    Raises ImageSourceError for masks that do not fit, UnfitError for a network that gives no maps.
    """
    meet()
    scenes, validation = open_data(run)
    names, unseen = first_decides(lambda: looked_at(run, scenes, validation))

    def train(one: SegmentRun, division: Division | None) -> None:
        changed = altered(one, PRESETS, part=division is not None)
        learnt, tested = (scenes, validation) if division is None else divided(scenes, division)
        one, method = built(replace(one, task=replace(one.task, classes=len(names))).on(len(learnt)))
        say(one.steps_sentence(len(learnt)))
        judge = SegmentationJudge(one, method, tested, names, unseen, changed)
        train_run(one, method, learnt, judge, judge.save_results)

    train_at_rates(run, scenes, "miou", train)


def divided(scenes: Scenes, division: Division) -> tuple[Scenes, Scenes]:
    """The training scenes that are learnt from, and those that are kept for the choice.

    ImageSourceError where no mask of the latter holds a class.
    """
    kept = ScenesAt(scenes, division.kept)
    if not any((kept.mask(row) < IGNORED).any() for row in range(len(kept))):
        raise ImageSourceError(
            f"none of the {len(kept)} masks kept for the choice of the learning rate, such as {kept.mask_place(0)}, "
            "holds a class: keep more with --choice_share, or choose with --choose_on validation"
        )
    return ScenesAt(scenes, division.learnt), kept


def open_data(run: SegmentRun) -> tuple[Scenes, Scenes]:
    """The scenes to train on, enough for a batch, and those to be tested on."""
    reading = run.decoding, run.annotations_frame
    scenes = open_scenes(run.data, run.mask_column, run.train_lists, *reading)
    require_batch(scenes, run.batch_size)
    tested = run.validation or run.data
    validation = open_scenes(tested, run.mask_column, run.validation_lists, *reading, beside=not run.validation)
    say_copies(validation, scenes)
    return scenes, validation


def looked_at(run: SegmentRun, scenes: Scenes, validation: Scenes) -> tuple[list[str], list[str]]:
    """The names of the classes, and of those that validation has and training lacks; ImageSourceError for bad masks."""
    counts, tested = survey(scenes, "training", complete=False), survey(validation, "validation", complete=True)
    names = list(class_names(run.data, run.classes, counts))
    if run.task.classes:
        names = [*names, *map(str, range(len(names), run.task.classes))][: run.task.classes]
    require_known(scenes, counts, len(names))
    require_known(validation, tested, len(names))
    unseen = [names[k] for k in np.flatnonzero((tested[:IGNORED] > 0) & (counts[:IGNORED] == 0))]
    say(f"{len(names)} classes in {len(scenes)} masks, tested on {len(validation)}")
    if unseen:
        say(f"No training mask holds {', '.join(unseen)}: its IoU counts all the same, as 0 or little more.")
    return names, unseen


def built(run: SegmentRun) -> tuple[SegmentRun, Segmentation]:
    """The method around the model, alike in all processes, and the run with what tells the model's weights apart."""
    model = run.opened(torch.device("cpu"))
    given = model.network if model.start else None
    backbone = dilated(run.model, not run.random, run.task.output_stride, given)
    weights = weights_sha256(backbone) if run.random else model.weights_sha256
    with building(run):
        return replace(run.begun_with(model), weights_sha256=weights), run.task.build(backbone)
