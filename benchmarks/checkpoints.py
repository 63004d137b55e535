"""Measure how long a training halts for a checkpoint of a ResNet-50: python benchmarks/checkpoints.py [--rounds 5]

The state is that of `resnet50_lewel_b.in1k_400ep` after a step: weights, their average, heads and the optimiser's
momentum. "waited for" is the time until the checkpoint is on the disk, which is what a training that waits for it
halts; "beside" is the time until the next step may begin while a thread writes. Both turn about on one state and one
disk, and the ratio is that of neighbours, by a watch and by the CPU time of the training's own thread. The figures go
to benchmarks/results/checkpoints.json.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import circumstances, command, on_threads, quartiles, say_verdicts, verdict, write

from ssl_backbones import recipes
from ssl_backbones.methods.method import Method
from ssl_backbones.runs.optimizer_state import optimizer_tensors
from ssl_backbones.runs.saving import State, save
from ssl_backbones.runs.writer import Writer
from ssl_backbones.train.beginning import Beginning
from ssl_backbones.train.optimization import build_optimizer
from ssl_backbones.train.pretrain import build

RECIPE = "resnet50_lewel_b.in1k_400ep"
PACKAGES = ("torch", "safetensors", "ssl-backbones")
TARGET = 0.2
"""The part of the time of a written checkpoint for which a training may halt."""


def state_of(recipe_name: str) -> State:
    """The parts of a checkpoint of a recipe's run, after a step on gradients that are all alike."""
    recipe = recipes.get(recipe_name)
    method: Method = build(Beginning(recipe, None))
    optimizer = build_optimizer(method, recipe)
    for weights in method.parameters():
        weights.grad = torch.full_like(weights, 1e-3) if weights.requires_grad else None
    optimizer.step()
    optimizer.zero_grad()
    tensors, _ = optimizer_tensors(optimizer, method.named_parameters())
    return {"method": method.state_dict(), "optimizer": tensors}


def clocks() -> np.ndarray:
    """The time by a watch, and the CPU time of this thread (2,)."""
    return np.array([time.perf_counter(), time.thread_time()])


def measure(state: State, folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds that a training halts for a checkpoint, by both ways in turn."""
    writer = Writer(folder / "beside", 2)
    waited, beside = [], []
    for step in range(rounds + 1):
        began = clocks()
        save(folder / "waited", step, state, {})
        waited.append(clocks() - began)
        began = clocks()
        writer.save(step, state, {})
        beside.append(clocks() - began)
        writer.settle()
    (first, _), *rest = beside
    halted = {"waited for": np.array(waited[1:]), "beside": np.array(rest)}
    return {
        "rounds": rounds,
        "megabytes": round(sum(tensor.nbytes for named in state.values() for tensor in named.values()) / 1e6, 1),
        "seconds_halted": {way: quartiles(seconds[:, 0], 3) for way, seconds in halted.items()},
        "seconds_of_the_first_copy": round(first, 3),
        "cpu_seconds_of_its_thread": {way: quartiles(seconds[:, 1], 3) for way, seconds in halted.items()},
        "halted_share": quartiles((halted["beside"] / halted["waited for"])[:, 0], 4),
    }


def peak() -> float:
    """Megabytes of memory that this process has taken at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    """Measure and write."""
    given = command(__file__, __doc__, 5).parse_args()
    on_threads(1)
    found = circumstances(PACKAGES)
    state = state_of(RECIPE)
    with tempfile.TemporaryDirectory(prefix="checkpoints-") as name:
        save(Path(name) / "before", 0, state, {})
        before = peak()
        results = measure(state, Path(name), given.rounds)
    results["more_memory_megabytes"] = round(peak() - before, 1)
    said = verdict("part of a written checkpoint for which a training halts", results["halted_share"]["median"], TARGET)
    write({"recipe": RECIPE, "made_with": found, **results, "verdicts": [said]}, given.out)
    say_verdicts([said])
    print(results)


if __name__ == "__main__":
    main()
