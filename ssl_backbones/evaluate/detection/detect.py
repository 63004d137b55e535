"""A detector trained from a backbone and tested: what is found is left in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ssl_backbones.data import require_batch, say_copies
from ssl_backbones.distributed import say, world_size
from ssl_backbones.evaluate.detection.annotations import AnnotatedImages
from ssl_backbones.evaluate.detection.box_metrics import require_pycocotools
from ssl_backbones.evaluate.detection.detect_run import PRESETS, DetectRun
from ssl_backbones.evaluate.detection.detection import Detection
from ssl_backbones.evaluate.detection.detection_judge import DetectionJudge
from ssl_backbones.evaluate.detection.open_annotated import open_annotated, open_kept_out
from ssl_backbones.evaluate.learning_rates import Division, train_at_rates
from ssl_backbones.evaluate.transfer import altered, building
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.train.prepare import fitting
from ssl_backbones.train.processes import meet
from ssl_backbones.train.run import train_run


def detect(run: DetectRun) -> None:
    """Train a detector as the run says, from where it was left, test it, and write results.json.

    Raises ImageSourceError for images that do not fit, UnfitError for a network or a head that does not.
    """
    device = meet()
    images, validation = open_data(run)

    def train(one: DetectRun, division: Division | None) -> None:
        changed = altered(one, PRESETS, part=division is not None)
        learnt, tested = (images, validation) if division is None else divided(images, division, one.task.with_masks)
        train_one(one, learnt, tested, device, changed)

    train_at_rates(run, images, "AP", train)


def divided(images: AnnotatedImages, division: Division, masks: bool) -> tuple[AnnotatedImages, AnnotatedImages]:
    """The training images that are learnt from, and those that are kept for the choice.

    ImageSourceError where the former have no object, or the latter none that counts.
    """
    learnt, kept = images.at(division.learnt), images.at(division.kept)
    learnt.require_objects()
    kept.require_counted(masks, "keep more with --choice_share, or choose with --choose_on validation")
    return learnt, kept


def train_one(
    run: DetectRun,
    images: AnnotatedImages,
    validation: AnnotatedImages,
    device: torch.device,
    changed: Mapping[str, Any],
) -> None:
    """Train a detector on images, from where it was left, test it on others, and write results.json.

    `changed` are the fields in which the run differs from its preset.
    """
    run, method = built(run, images)
    shared = world_size() > 1 and device.type == "cuda"
    if shared:
        synchronise_batch_norm(method)
    objects = sum(map(len, images.objects))
    say(f"{objects} objects of {len(images.classes)} classes in {len(images)} images, tested on {len(validation)}")
    say(run.steps_sentence(len(images)))
    say(
        f"All batch statistics are {'shared by the processes' if shared else 'of each process alone'}; before the test "
        f"they are taken anew on {run.task.precise_batches} batches"
    )
    judge = DetectionJudge(run, images, validation, changed)
    train_run(run, method, images, judge, judge.save_results)


def open_data(run: DetectRun) -> tuple[AnnotatedImages, AnnotatedImages]:
    """The images to train on, enough for a batch, and those to be tested on, of the same classes."""
    column = None if run.column == "auto" else run.column
    frame = run.annotations_frame
    images = open_annotated(run.data, column=column, frame=frame)
    require_batch(images, run.batch_size)
    if run.validation:
        tested = open_annotated(run.validation, column=column, kept_out=True, classes=images.classes, frame=frame)
    else:
        tested = open_kept_out(run.data, images, column, frame)
    say_copies(tested, images)
    for annotated in (images, tested):
        annotated.decode_by(run.decoding)
    if run.task.with_masks:
        tested.require_masks(f"the head {run.task.head}")
    with fitting():
        require_pycocotools()
    tested.require_counted(run.task.with_masks, "name others with --validation")
    return images, tested


def built(run: DetectRun, images: AnnotatedImages) -> tuple[DetectRun, Detection]:
    """The detector around the model, alike in all processes, and the run with all that model and images settle."""
    model = run.opened(torch.device("cpu"))
    task = replace(run.task, classes=run.classes or len(images.classes))
    run = replace(run.begun_with(model), task=task).on(len(images))
    with building(run):
        return run, run.task.build(model.network.train())
