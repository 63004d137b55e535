"""The cost of a run as its first batch and its state tell it: time, memory and disk."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from statistics import median

import torch
from torch import nn

from ssl_backbones.methods.method import Method
from ssl_backbones.narrator import as_time
from ssl_backbones.recipes.recipe import Run
from ssl_backbones.runs.log import read_log
from ssl_backbones.train.growth import of_whole_views, pixels
from ssl_backbones.train.loop import Loop

PAGES = 20e6
"""Bytes of the page, the pictures and the log of a run, at most."""
PASSES = 3
"""Passes forward that a pass forward and back takes, where the latter was not timed."""
RECENT = 5
"""Lines of speed.jsonl whose median is the pace of a run that goes on."""
Pace = Callable[[float], float]
"""Seconds of a step by the pixels of its views, as a share of those of whole ones."""


@dataclass(frozen=True)
class FirstBatch:
    """Seconds that the first micro-batch of this process took."""

    reading: float
    """Decoding its images and making their views, in one process."""
    forward: float
    """Scoring them, without gradients."""


def expected(loop: Loop, timing: FirstBatch | None) -> str:
    """The forecast in a sentence; of time only what was timed, and checkpoints as large as today's."""
    needed, free = disk_needed(loop.run, loop.method), shutil.disk_usage(loop.folder.path).free
    short = ", WHICH IS MORE THAN IS FREE" if needed > free else ""
    copied = checkpoint_size(loop.method, loop.run.optimizer.kind)
    pace = pace_of(loop, timing)
    told = [
        *([] if pace is None else [time_sentence(loop, pace)]),
        f"memory {gigabytes(peak_memory(loop.accelerator.device))} so far",
        f"host memory {gigabytes(copied)} for the copy that checkpoints are written from",
        f"disk {gigabytes(needed)} of {gigabytes(free)} free in {loop.folder.path}{short}",
    ]
    return f"Forecast: {'; '.join(told)}."


def pace_of(loop: Loop, timing: FirstBatch | None) -> Pace | None:
    """The pace of a run that goes on as it was before, of another one by its first batch; None where none is known."""
    if before := seconds_before(loop):
        return lambda share: share * before
    return partial(seconds_of_step, loop, timing) if timing is not None and tells_pace(loop) else None


def seconds_before(loop: Loop) -> float | None:
    """Seconds of a step of whole views by the last lines that the run left of its speed; None without any."""
    lines = read_log(loop.folder.speed) if loop.step and loop.folder.speed.exists() else []
    rates = [rate for line in lines if 0 < (rate := line.get("images_per_second", 0)) < math.inf][-RECENT:]
    if not rates:
        return None
    share = pixels(loop.run)[(loop.step - 1) // loop.loader.steps_per_epoch]
    seconds = float(loop.run.batch_size / median(rates) / share)
    return seconds if math.isfinite(seconds) else None


def tells_pace(loop: Loop) -> bool:
    """True if the first batch tells the time of steps: some were timed, or a run begins on a CPU.

    The first pass on a GPU takes many times as long as those that follow, and a run that goes on times no steps.
    """
    return bool(loop.compute.tried) or (loop.step == 0 and loop.accelerator.device.type == "cpu")


def time_sentence(loop: Loop, pace: Pace) -> str:
    """The time of a step, of an epoch, and of all steps that are left, at a pace."""
    step, per_epoch = pace(1.0), loop.loader.steps_per_epoch
    left = 0.0
    for epoch, share in enumerate(pixels(loop.run)):
        steps = min(loop.total_steps, (epoch + 1) * per_epoch) - max(loop.step, epoch * per_epoch)
        left += max(0, steps) * pace(share)
    whole = f"about {step:.2g} s a step, {as_time(step * per_epoch)} an epoch"
    return f"{whole}{of_whole_views(loop.run)}, {as_time(left)} in all, plus the measurements"


def seconds_of_step(loop: Loop, timing: FirstBatch, share: float = 1.0) -> float:
    """The time of an optimiser step: of its passes or of its reading, whichever is longer where workers read.

    Passes go with the pixels of the views, a `share` of those of whole ones.
    """
    passes = share * loop.compute.tried.get(loop.compute.way, PASSES * timing.forward)
    workers = loop.loader.workers
    return while_reading(passes, timing.reading, workers, loop.accelerator.device) * loop.run.parts


def while_reading(passes: float, reading: float, workers: int, device: torch.device) -> float:
    """Seconds of passes while so many workers read: the longer of both; on a CPU, whose cores they share, the sum."""
    if device.type == "cpu":
        return passes + reading / (workers + 1)
    return max(passes, reading / workers) if workers else passes + reading


def disk_needed(run: Run, method: Method) -> float:
    """Bytes of a run's folder: the checkpoints kept, the best one, the one being written, and the backbone."""
    kept = (run.checkpoints.keep + 2) * checkpoint_size(method, run.optimizer.kind)
    return kept + size_of_state(method.backbone) + PAGES


def checkpoint_size(method: Method, kind: str) -> int:
    """Bytes of a checkpoint, and of the copy in the first process's memory that it is written from."""
    return size_of_state(method) + kept_by(kind) * learning(method)


def kept_by(optimizer: str) -> int:
    """Bytes that an optimiser keeps for each weight: a moving average of SGD and LARS, two of Adam and AdamW."""
    return 8 if optimizer.startswith("adam") else 4


def size_of_state(network: nn.Module) -> int:
    """Bytes of all weights and buffers."""
    return sum(int(tensor.nbytes) for tensor in network.state_dict().values())


def learning(method: Method) -> int:
    """The number of weights that learn."""
    return sum(weights.numel() for weights in method.parameters() if weights.requires_grad)


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has taken at most: of a GPU what torch allocated, else of the machine's memory."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if find_spec("resource") is None:  # not on Windows
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def gigabytes(count: float) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
