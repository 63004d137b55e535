"""Evaluate a backbone by semantic segmentation: train a fully convolutional network from it, and test that.

Examples:
    ssl-backbones segment runs/mine --preset voc_fcn_d8 --data VOC2012 --out results/segment
    ssl-backbones segment resnet8_byol --preset small --data scenes.parquet --out results/segment --random

MODEL is a registered name, a timm name, hf-hub:org/name, or the folder of a run. The data are a folder in
Pascal VOC's layout, or parquet files with a column of masks. The network is dilated, and tested at the original size of
every validation image. The same command goes on with a run that was stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

from ssl_backbones.evaluate.presets import read_preset
from ssl_backbones.evaluate.segmentation.segment import segment
from ssl_backbones.evaluate.segmentation.segment_run import PRESETS, SegmentRun


def parse(words: Sequence[str], program: str) -> SegmentRun:
    """The preset that the words name, altered by the options."""
    return read_preset(PRESETS, words, program, __doc__)


def run(options: SegmentRun) -> None:
    """Train a segmentation and test it; what was found is left in the run's folder."""
    segment(options)
