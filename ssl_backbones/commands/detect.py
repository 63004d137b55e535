"""Evaluate a backbone by object detection: train a Faster or Mask R-CNN from it, and test that.

Examples:
    ssl-backbones detect runs/mine --preset voc_24k --head faster_c4 --data VOC --out results/detect
    ssl-backbones detect resnet8_byol --preset small --data scenes.parquet --out results/detect --random

MODEL is a registered name, a timm name, hf-hub:org/name, or the folder of a run. The data are VOC folders
(several with commas between them, each with :split if need be), a COCO folder or file, or parquet files with a column
of objects. --head is short for --task.head. The same command goes on with a run that was stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

from ssl_backbones.evaluate.detection.detect import detect
from ssl_backbones.evaluate.detection.detect_run import PRESETS, DetectRun
from ssl_backbones.evaluate.presets import read_preset


def parse(words: Sequence[str], program: str) -> DetectRun:
    """The preset that the words name, altered by the options."""
    long = [f"--task.{word[2:]}" if word.partition("=")[0] == "--head" else word for word in words]
    return read_preset(PRESETS, long, program, __doc__)


def run(options: DetectRun) -> None:
    """Train a detector and test it; what was found is left in the run's folder."""
    detect(options)
