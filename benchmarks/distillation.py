"""The cost of distilling from kept features, and of keeping them: python benchmarks/distillation.py

A step of the real loop whose batch brings the teacher's features with it takes its turn with the bare passes of the
student: forward, backward and the optimiser, no head, no views. The making of a folder of features, images read and
prepared from their files and rows written, takes its turn with the teacher's bare forward over as many images that are
ready in memory. With one thread on a CPU, CPU time is what counts. The teacher's weights are random unless a folder is
named: they change no time.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from steps import CASES, QUICK, Bare, Case, Noise, Step, anew, loop_of, recipe_of
from timing import (
    SAMPLE,
    circumstances,
    clock_of,
    command,
    in_turn,
    on_threads,
    quartiles,
    say_verdicts,
    verdict,
    write,
)
from timm.models import save_for_hf

from ssl_backbones.data import open_images
from ssl_backbones.data.subset import Subset
from ssl_backbones.methods.distilled import DistilledConfig
from ssl_backbones.models.images_ahead import BATCH
from ssl_backbones.models.kept_features import keep_features
from ssl_backbones.models.teacher import Teacher
from ssl_backbones.train.precision import Compute
from ssl_backbones.train.processes import accelerator_of, meet

PACKAGES = ("torch", "timm", "accelerate", "numpy", "pillow")
STEP_TARGET, KEEPING_TARGET = 1.10, 1.10
"""Largest ratios asked for: a step's time to the bare passes', and keeping features to the teacher's forward."""
SMALL = Case("resnet8@32", "resnet8", 32, 64)
TEACHERS = {"tf_efficientnet_lite0": 224, "vit_small_patch14_dinov2": 112}
"""Teachers, and the side of the images that they are shown."""
ROUNDS_OF_KEEPING = 5

Row = dict[str, Any]


def step_row(case: Case, network: str, rounds: int, device: torch.device) -> Row:
    """The time of a step of one case beside the student's bare passes."""
    compute = Compute("fp32", "channels_last", {})
    images = Noise(case.batch, case.size)
    with tempfile.TemporaryDirectory(prefix="kept-") as folder:
        config = DistilledConfig(teacher=teacher_in(Path(folder), network), kept=f"{folder}/kept", teacher_size=64)
        anew()
        step = Step(
            loop_of(recipe_of(case, config, compute), case, images, compute, accelerator_of("fp32", (), "unused")),
            case.batch,
        )
        bare = Bare(case, step.passes(), compute, device)
        kind, clock = clock_of(device)
        seconds = in_turn({"step": step, "bare": bare}, rounds, clock)
        width = Teacher(config.teacher).width
    return {
        "case": case.name,
        "batch": case.batch,
        "teacher_width": width,
        "clock": kind,
        "ms": quartiles(seconds["step"] * 1e3, 2),
        "bare_ms": quartiles(seconds["bare"] * 1e3, 2),
        "to_bare": quartiles(seconds["step"] / seconds["bare"], 3),
    }


def teacher_in(folder: Path, architecture: str, **more: Any) -> str:
    """A teacher of random weights in a folder."""
    torch.manual_seed(0)
    network = timm.create_model(architecture, num_classes=0, **more)
    save_for_hf(network, folder / "teacher", safe_serialization=True)
    return str(folder / "teacher")


def keeping_row(name: str, side: int, count: int, rounds: int, device: torch.device) -> Row:
    """The time of keeping the features of so many images beside that of the teacher's forward alone."""
    source = open_images(str(SAMPLE))
    images = Subset(source, np.arange(count) % len(source))
    with tempfile.TemporaryDirectory(prefix="kept-") as folder:
        given = name if Path(name).is_dir() else teacher_in(Path(folder), name)
        teacher = Teacher(given)
        teacher.open(side)
        batches = [torch.randn(min(BATCH, count - at), 3, side, side, device=device) for at in range(0, count, BATCH)]
        ready = [batch.contiguous(memory_format=torch.channels_last) for batch in batches]
        kind, clock = clock_of(device)
        ways: dict[str, Callable[[], object]] = {
            "keep": lambda: keep_features(teacher, side, images, Path(tempfile.mkdtemp(dir=folder)) / "kept"),
            "bare": lambda: [teacher.look(batch) for batch in ready],
        }
        seconds = in_turn(ways, rounds, clock)
    return {
        "teacher": Path(name).name,
        "side": side,
        "images": count,
        "clock": kind,
        "images_per_second": quartiles(count / seconds["keep"], 1),
        "bare_images_per_second": quartiles(count / seconds["bare"], 1),
        "to_bare": quartiles(seconds["keep"] / seconds["bare"], 3),
    }


def verdicts(results: Row) -> list[Row]:
    """Every target, and what came of it."""
    return [
        verdict(f"{row['case']}, a step of kept features / bare passes", row["to_bare"]["median"], STEP_TARGET)
        for row in results["steps"]
    ] + [
        verdict(f"{row['teacher']}, keeping / bare forward", row["to_bare"]["median"], KEEPING_TARGET)
        for row in results["keeping"]
    ]


def options_of() -> argparse.Namespace:
    """The words of the command line."""
    parser = command(__file__, __doc__, rounds=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=256, help="whose features are kept")
    parser.add_argument("--quick", action="store_true", help="one tiny case, for a test")
    return parser.parse_args()


def main() -> None:
    """Measure, write the results down, and say which targets are met."""
    options = options_of()
    device = meet()
    on_threads(options.threads)
    results = circumstances(PACKAGES, device) | {"rounds": options.rounds, "steps": [], "keeping": []}
    cases = [QUICK] if options.quick else [SMALL, CASES["resnet18@64"]]
    for case in cases:
        results["steps"].append(
            step_row(case, "resnet8" if options.quick else "tf_efficientnet_lite0", options.rounds, device)
        )
        print(results["steps"][-1], flush=True)
    for name, side in {"resnet8": 32}.items() if options.quick else TEACHERS.items():
        count = 16 if options.quick else options.images
        results["keeping"].append(keeping_row(name, side, count, min(options.rounds, ROUNDS_OF_KEEPING), device))
        print(results["keeping"][-1], flush=True)
    results["verdicts"] = verdicts(results)
    write(results, options.out)
    say_verdicts(results["verdicts"])


if __name__ == "__main__":
    main()
