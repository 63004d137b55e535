"""Measure, in at most nine minutes of one GPU, what no CPU can tell of this package:

    python benchmarks/gpu.py --out "$OUT/gpu.json"

Every part writes the whole file of results anew after each thing that it measured, so that a command which is cut
short leaves all that was found; a part is left out when its time would not be enough, and one that fails does not stop
the others. The exit code is 1 if any failed. In order, whole commands first, as they tell whether anything works:

resumed: a run twice, and from its middle. waits: calls within a step that wait for the device. halves: fp16 with its
scaler. commands: ways to train, and questions to a backbone, that no other part touches. nccl: a run of a launcher.
steps50 and steps18: BYOL, LEWEL_B, MoCo v2 and LEWEL_M, the loop's own step from a batch that is ready on the host,
in turn with the bare passes of the backbone: images a second, the host's share of the time, peak memory.
end_to_end: from files to steps. engines: views made on the device, against the same on the CPU. neighbours: k-NN of
50,000 images. repeatability: the same steps twice. switches: one of torch's switches moved.

It needs this repository, not installed, and these packages at hand: torch 2.6 or newer, timm, huggingface_hub,
safetensors, numpy, Pillow, Jinja2, accelerate, pyarrow, tqdm; and OpenCV for its engine. On a machine without a network
bring wheels of those that it lacks. All images are noise. What does not fit into the time is measured by a second
command, with --only. --small makes everything tiny, for a dry run on a CPU, where the numbers mean nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import needs

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or products are not repeatable; before CUDA starts
sys.path.insert(0, str(needs.ROOT))

import gpu_parts
import gpu_steps
import torch
from gpu_runs import Runs
from gpu_steps import Machine
from limited import Record, Row
from timing import circumstances, say_verdicts, verdict

from ssl_backbones.train.processes import meet

PACKAGES = ("torch", "timm", "accelerate", "numpy", "pillow", "opencv-python-headless", "triton")
NEEDS = {
    "resumed": 75,
    "waits": 60,
    "halves": 15,
    "commands": 100,
    "nccl": 25,
    "steps50": 45,
    "end_to_end": 150,
    "engines": 12,
    "neighbours": 12,
    "repeatability": 90,
    "steps18": 25,
    "switches": 20,
}
"""Seconds without which a part is not begun: estimates, as no GPU has run this yet; every file tells what they took."""
SPEED = {"byol": 1600, "moco_v2": 3200}
"""Images a second, ResNet-50 at 224 px, that are wanted of an H200."""
ALIGNED, END_TO_END, VIEWS = 1.15, 1.05, 0.15
"""LEWEL_B's step to BYOL's, a whole step to the bare passes, views to a step of ResNet-18 at 64 px: at most."""


def parts_of(machine: Machine, runs: Runs) -> dict[str, Callable[[], Iterator[Row]]]:
    """Every part by its name, in order."""
    here = {"engines": gpu_parts, "neighbours": gpu_parts}
    whole = {name: getattr(runs, name) for name in ("resumed", "commands", "nccl", "end_to_end")}
    return {name: whole.get(name) or partial(getattr(here.get(name, gpu_steps), name), machine) for name in NEEDS}


def verdicts(record: Record) -> list[dict[str, Any]]:
    """The targets that the rows so far can be held against; they are an H200's."""
    found = []
    large, small = ({row["method"]: row for row in record.rows(name)} for name in ("steps50", "steps18"))
    for name, target in SPEED.items():
        if name in large:
            rate = large[name]["images_per_second"]
            found.append(verdict(f"{name}, ResNet-50 at 224 px, images/s", rate, target, at_most=False))
    if {"byol", "lewel_b"} <= set(large):
        ratio = large["byol"]["images_per_second"] / large["lewel_b"]["images_per_second"]
        found.append(verdict("LEWEL_B's step to BYOL's, ResNet-50 at 224 px", ratio, ALIGNED))
    rates = [max(row["images_per_second"]) for row in record.rows("end_to_end") if row["images_per_second"]]
    if rates and "lewel_b" in large:
        bare = 1e3 * large["lewel_b"]["batch"] / large["lewel_b"]["bare_ms"]["median"]
        found.append(
            verdict("LEWEL_B end to end, the fastest engine, to its bare passes", bare / max(rates), END_TO_END)
        )
    views = [row for row in record.rows("engines") if row["views"] == "lewel_b" and row["size"] <= 64]
    if views and "lewel_b" in small:
        share = views[0]["resident_views_ms"]["median"] / small["lewel_b"]["ms"]["median"]
        found.append(verdict("device views to LEWEL_B's step, ResNet-18 at 64 px", share, VIEWS))
    return found


def options() -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "gpu.json", help="file to write"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="after which nothing more is begun (9)")
    parser.add_argument("--only", nargs="+", choices=list(NEEDS), default=list(NEEDS), help="parts to measure")
    parser.add_argument("--small", action="store_true", help="tiny sizes, for a dry run on a CPU")
    return parser.parse_args()


def main() -> int:
    """Measure, print and write; 1 if a part failed."""
    asked = options()
    machine = Machine(meet(), asked.small)
    about = circumstances(PACKAGES, machine.device)
    if machine.device.type == "cuda":
        about["device_gb"] = round(torch.cuda.get_device_properties(machine.device).total_memory / 1e9, 1)
        about["cudnn"] = torch.backends.cudnn.version()
    print(about, flush=True)
    record = Record(asked.out, asked.minutes, about | {"small": asked.small})
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        for name, part in parts_of(machine, Runs(machine, Path(folder), record.left)).items():
            if name in asked.only:
                record.measure(name, part, 0 if asked.small else NEEDS[name])
                record.found["verdicts"] = [] if asked.small else verdicts(record)
                record.write()
    say_verdicts(record.found["verdicts"])
    return 1 if record.found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
