"""How well a backbone learns to find objects: accelerate launch training/detect.py MODEL --data ... --out ...

MODEL is a registered name, hf-hub:org/name, or the folder of a run. The data are VOC folders (several with commas
between them, each with :split if need be), a COCO folder or file, or parquet files with a column of objects. A Faster
or Mask R-CNN is trained from the backbone, and tested on the validation photos. The same command goes on with a run
that was stopped.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

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
from ssl_backbones.evaluate.detection.detectors import Head
from ssl_backbones.evaluate.detection.open_annotated import open_annotated, open_kept_out
from ssl_backbones.models.backbone import weights_sha256
from ssl_backbones.refusal import Refusal
from ssl_backbones.train import processes
from ssl_backbones.train.processes import meet
from ssl_backbones.train.start import fitting
from ssl_backbones.train.transfer import carry_out
from ssl_backbones.typed.words import options, read, refuse, taken

USUAL = "voc_24k"
DECIDED = ("protocol", "model", "weights_sha256", "epochs", "max_steps", "task.classes")
"""Fields that are no options: the data, the model and the iterations settle them."""


def detect(run: DetectRun) -> None:
    """Train a detector and test it; what was found is left in the run's folder."""
    device = meet()
    images, validation = open_data(run)
    run, method = built(settled(run, images))
    if world_size() > 1 and device.type == "cuda":
        method = nn.SyncBatchNorm.convert_sync_batchnorm(method)
    if rank() == 0:
        print(introduction(run, images, validation, device), flush=True)
    judge = DetectionJudge(run, images, validation)
    carry_out(run, method, images, judge, judge.save_results)


def open_data(run: DetectRun) -> tuple[AnnotatedImages, AnnotatedImages]:
    """The photos to train on, enough for a batch, and those to be tested on, of the same classes."""
    column = None if run.column == "auto" else run.column
    images = open_annotated(run.data, column=column)
    require_batch(images, run.batch_size)
    if run.validation:
        tested = open_annotated(run.validation, column=column, kept_out=True, classes=images.classes)
    else:
        tested = open_kept_out(run.data, images, column)
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
    """What is about to be trained, for a person."""
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


def parse(argv: Sequence[str] | None = None) -> DetectRun:
    """The run of a command line. What cannot be read ends the process: one sentence, exit code 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    model = words.pop(0) if words and not words[0].startswith("-") else ""
    preset, words = taken(words, "preset", PRESETS, USUAL, "detect.py", shown=repr)
    run = PRESETS[preset]
    head, words = taken(words, "head", get_args(Head), run.task.head, "detect.py", shown=repr)
    made = altered(replace(run, task=replace(run.task, head=head)), words)  # type: ignore[arg-type]
    if not model:
        refuse("detect.py: name a MODEL first: a registered name, hf-hub:org/name, or the folder of a run.")
    for name, example in (("data", "VOC or COCO folders or parquet files"), ("out", "a new folder")):
        if not getattr(made, name):
            refuse(f"detect.py: --{name} is missing: name {example} with it.")
    return replace(made, model=model)


def altered(run: DetectRun, words: list[str]) -> DetectRun:
    """The run with the options' values."""
    return read(
        DetectRun,
        run,
        words,
        "detect.py",
        f"{__doc__}\n--preset is one of {', '.join(PRESETS)} ({USUAL} where none is named), --head "
        f"one of {', '.join(get_args(Head))}.",
        types=settable(),
    )


def settable() -> dict[str, Any]:
    """The type of every option by its dotted name, less what the data and the iterations decide."""
    return {name: hint for name, hint in options(DetectRun).items() if name not in DECIDED}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; what is refused ends in one sentence and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    run = parse(argv)
    try:
        detect(run)
    except Refusal as error:
        processes.refuse("detect.py", error)


if __name__ == "__main__":
    main()
