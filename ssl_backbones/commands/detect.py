"""Evaluate a backbone by object detection: train a Faster or Mask R-CNN from it, and test that.

Examples:
    ssl-backbones detect runs/mine --preset voc_24k --head faster_c4 --data VOC --out results/detect
    ssl-backbones detect resnet8_byol --preset small --data scenes.parquet --out results/detect --random

MODEL is a registered name, hf-hub:org/name, or the folder of a run. The data are VOC folders (several with commas
between them, each with :split if need be), a COCO folder or file, or parquet files with a column of objects. --head is
short for --task.head. The same command goes on with a run that was stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

import ssl_backbones
from ssl_backbones.data import require_batch
from ssl_backbones.distributed import rank, world_size
from ssl_backbones.evaluate.detection.annotations import AnnotatedImages
from ssl_backbones.evaluate.detection.box_metrics import require_evaluators
from ssl_backbones.evaluate.detection.detect_run import PRESETS, DetectRun
from ssl_backbones.evaluate.detection.detection import Detection
from ssl_backbones.evaluate.detection.detection_judge import DetectionJudge, metric_of
from ssl_backbones.evaluate.detection.open_annotated import open_annotated, open_kept_out
from ssl_backbones.evaluate.presets import read_preset
from ssl_backbones.models.backbone import weights_sha256
from ssl_backbones.train.processes import meet
from ssl_backbones.train.run import train_run
from ssl_backbones.train.start import fitting


def parse(words: Sequence[str], program: str) -> DetectRun:
    """The preset that the words name, altered by the options."""
    long = [f"--task.{word[2:]}" if word.partition("=")[0] == "--head" else word for word in words]
    return read_preset(PRESETS, long, program, __doc__)


def run(options: DetectRun) -> None:
    """Train a detector and test it; what was found is left in the run's folder."""
    device = meet()
    images, validation = open_data(options)
    run, method = built(settled(options, images))
    if world_size() > 1 and device.type == "cuda":
        method = nn.SyncBatchNorm.convert_sync_batchnorm(method)
    if rank() == 0:
        print(introduction(run, images, validation, device), flush=True)
    judge = DetectionJudge(run, images, validation)
    train_run(run, method, images, judge, judge.save_results)


def open_data(run: DetectRun) -> tuple[AnnotatedImages, AnnotatedImages]:
    """The photos to train on, enough for a batch, and those to be tested on, of the same classes."""
    column = None if run.column == "auto" else run.column
    images = open_annotated(run.data, column=column)
    require_batch(images, run.batch_size)
    if run.validation:
        tested = open_annotated(run.validation, column=column, kept_out=True, classes=images.classes)
    else:
        tested = open_kept_out(run.data, images, column)
    for annotated in (images, tested):
        annotated.decode_by(run.decoding)
    masks = run.task.head.startswith("mask")
    if masks:
        tested.require_masks(f"the head {run.task.head}")
    with fitting():
        require_evaluators(metric_of(run, tested), masks)
    return images, tested


def settled(run: DetectRun, images: AnnotatedImages) -> DetectRun:
    """The run with what the photos decide: the classes that are told apart, and its steps."""
    classes = run.classes or len(images.classes)
    return replace(run, task=replace(run.task, classes=classes)).on(len(images))


def built(run: DetectRun) -> tuple[DetectRun, Detection]:
    """The method around the model, alike in all processes, and the run with what tells the model's weights apart."""
    torch.manual_seed(run.seed)
    backbone = ssl_backbones.create_model(run.model, pretrained=not run.random, num_classes=0)
    run = replace(run, weights_sha256=weights_sha256(backbone))
    torch.manual_seed(run.seed)  # the head is alike whatever the backbone drew
    with fitting():
        return run, run.task.build(backbone)


def introduction(run: DetectRun, images: AnnotatedImages, validation: AnnotatedImages, device: torch.device) -> str:
    """The training that is about to begin, in words."""
    objects = sum(map(len, images.objects))
    shared = world_size() > 1 and device.type == "cuda"
    return "\n".join(
        [
            f"{objects} objects of {len(images.classes)} classes in {len(images)} photos, tested on {len(validation)}",
            run.steps_sentence(len(images)),
            f"All batch statistics are {'shared by the processes' if shared else 'of each process alone'}; before the "
            f"test they are taken anew on {run.task.precise_batches} batches",
        ]
    )
