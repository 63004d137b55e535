"""Evaluate a backbone by semantic segmentation: train a fully convolutional network from it, and test that.

Examples:
    ssl-backbones segment runs/mine --preset voc_fcn_d8 --data VOC2012 --out results/segment
    ssl-backbones segment resnet8_byol --preset small --data scenes.parquet --out results/segment --random

MODEL is a registered name, hf-hub:org/name, or the folder of a run. The data are a folder in Pascal VOC's layout, or
parquet files with a column of masks. The network is dilated, and tested at the original size of every validation
image. The same command goes on with a run that was stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

import ssl_backbones
from ssl_backbones.data import require_batch
from ssl_backbones.distributed import rank
from ssl_backbones.evaluate.presets import read_preset
from ssl_backbones.evaluate.segmentation.fcn import dilated
from ssl_backbones.evaluate.segmentation.masks import IGNORED, Scenes, open_scenes, scenes_kept_out
from ssl_backbones.evaluate.segmentation.segment_run import PRESETS, SegmentRun
from ssl_backbones.evaluate.segmentation.segmentation import Segmentation
from ssl_backbones.evaluate.segmentation.segmentation_judge import SegmentationJudge
from ssl_backbones.evaluate.segmentation.survey import class_names, require_known, survey
from ssl_backbones.models.backbone import weights_sha256
from ssl_backbones.train.processes import first_decides, meet
from ssl_backbones.train.run import train_run
from ssl_backbones.train.start import fitting


def parse(words: Sequence[str], program: str) -> SegmentRun:
    """The preset that the words name, altered by the options."""
    return read_preset(PRESETS, words, program, __doc__)


def run(options: SegmentRun) -> None:
    """Train a segmentation and test it; what was found is left in the run's folder."""
    meet()
    scenes, validation = open_data(options)
    names, unseen = first_decides(lambda: looked_at(options, scenes, validation))
    run, method = built(replace(options, task=replace(options.task, classes=len(names))).on(len(scenes)))
    if rank() == 0:
        print(run.steps_sentence(len(scenes)), flush=True)
    judge = SegmentationJudge(run, method, scenes, validation, names, unseen)
    train_run(run, method, scenes, judge, judge.save_results)


def open_data(run: SegmentRun) -> tuple[Scenes, Scenes]:
    """The scenes to train on, enough for a batch, and those to be tested on."""
    scenes = open_scenes(run.data, run.mask_column, run.train_lists, run.decoding)
    require_batch(scenes, run.batch_size)
    if run.validation:
        return scenes, open_scenes(run.validation, run.mask_column, run.validation_lists, run.decoding)
    return scenes, scenes_kept_out(run.data, run.mask_column, run.validation_lists, run.decoding)


def looked_at(run: SegmentRun, scenes: Scenes, validation: Scenes) -> tuple[list[str], list[str]]:
    """The names of the classes, and of those that validation has and training lacks; ImageSourceError for bad masks."""
    counts, tested = survey(scenes, "training", complete=False), survey(validation, "validation", complete=True)
    names = list(class_names(run.data, run.classes, counts))
    if run.task.classes:
        names = [*names, *map(str, range(len(names), run.task.classes))][: run.task.classes]
    require_known(scenes, counts, len(names))
    require_known(validation, tested, len(names))
    unseen = [names[k] for k in np.flatnonzero((tested[:IGNORED] > 0) & (counts[:IGNORED] == 0))]
    print(f"{len(names)} classes in {len(scenes)} masks, tested on {len(validation)}", flush=True)
    if unseen:
        print(f"No training mask holds {', '.join(unseen)}: its IoU counts all the same, as 0 or little more.")
    return names, unseen


def built(run: SegmentRun) -> tuple[SegmentRun, Segmentation]:
    """The method around the model, alike in all processes, and the run with what tells the model's weights apart."""
    torch.manual_seed(run.seed)
    backbone = dilated(run.model, not run.random, run.task.output_stride)
    known_by = backbone if run.random else ssl_backbones.create_model(run.model, pretrained=True, num_classes=0)
    torch.manual_seed(run.seed)  # the head is alike whatever the backbone drew
    with fitting():
        method = run.task.build(backbone)
    return replace(run, weights_sha256=weights_sha256(known_by)), method
