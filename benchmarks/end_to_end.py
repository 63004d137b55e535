"""Whole training, images to weights: python benchmarks/end_to_end.py [--data FOLDER]

Against: BYOL on the same images, network, widths and passes in two loops, each a step in turn in one process: the real
loop's steps (loader, `Loop.descend`, the log every ten steps), and lightly's documented loop with its own transform,
modules and loss, where lightly is installed; both in fp32 and in bf16. The network's bare passes (no views, heads or
targets that move) take their turn as well. Batches are made in the process itself, so that all of the work is counted;
with one thread on a CPU it is CPU time. lightly runs in fp32 by default on a CPU, and that is what the targets compare
with; its steps in bf16 are given beside it.

Whole: the real run (`prepare` to `complete`, with its monitoring and checkpoints) by itself, with the workers that
it finds fitting: images a second, the share of time in which the loop waited for its batches, mean over median step.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import peer
import torch
from steps import CASES, Bare, Case, Step, anew, command_of_cases, loop_of, measure_cases, recipe_of
from timing import SAMPLE, circumstances, clock_of, in_turn, on_threads, quartiles, verdict

from ssl_backbones.data import Batch, Images, open_images
from ssl_backbones.data.placement import to_device
from ssl_backbones.methods.byol import BYOLConfig
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.train.loop import Loop
from ssl_backbones.train.monitor import Monitor
from ssl_backbones.train.precision import Compute, choose
from ssl_backbones.train.prepare import prepare
from ssl_backbones.train.processes import accelerator_of, meet
from ssl_backbones.train.run import complete
from ssl_backbones.views import BYOL_VIEWS, check_engine, using_engine

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "pillow", "opencv-python-headless", "lightly")
PRECISIONS = ("fp32", "bf16")
TARGETS = {
    ("resnet18@64", "bf16"): 1.6,
    ("resnet18-3x3@32", "bf16"): 2.8,
    ("resnet8@96", "bf16"): 3.5,
    ("resnet18@64", "fp32"): 1.0,
    ("resnet18-3x3@32", "fp32"): 1.05,
    ("resnet8@96", "fp32"): 1.5,
}
"""The least speed, as a multiple of lightly's loop in fp32."""
BARE_TARGET, STALL_TARGET = 1.05, 1.03
"""A whole step to its bare passes, and the mean step to the median one, at most."""
LOG_EVERY = 10


def config_of(case: Case) -> MethodConfig:
    """BYOL as lightly's loop has it: BYOL's views, and a target normalised with the batch's statistics."""
    return case.config(BYOLConfig, target_bn="plain", views=BYOL_VIEWS)


def chosen(case: Case, images: Images, precision: str, device: torch.device) -> Compute:
    """The precision with the layout that is faster in it here."""
    method = config_of(case).build(case.network()).train()
    dataset = method.dataset(images, case.size, 0)
    content = dataset.on_device(to_device(Step.batch_of(dataset, case.batch).content, device))
    return choose(method, content, device, precision)


def real_steps(loop: Loop) -> Iterator[float]:
    """A step of the loop each time that it is asked for; the seconds that it waited for its batch."""
    batches = loop.loader.steps(0, loop.total_steps)
    while True:
        start = time.perf_counter()
        micro_batches = next(batches)
        waited = time.perf_counter() - start
        loop.descend(micro_batches)
        if loop.step % LOG_EVERY == 0:
            loop.require_finite_steps()
            loop.means.close()
        yield waited


def against(
    case: Case, images: Images, precisions: Sequence[str], workers: int, rounds: int, device: torch.device
) -> dict[str, Any]:
    """Each loop's step in each precision, and the bare passes, in turn."""
    found = {precision: chosen(case, images, precision, device) for precision in precisions}
    print(f"{case.name}, batch {case.batch}: {'; '.join(map(str, found.values()))}", flush=True)
    ways: dict[str, Callable[[], object]] = {}
    for precision, compute in found.items():
        anew()
        accelerator = accelerator_of(compute.precision, (), "unused")
        recipe = recipe_of(case, config_of(case), compute, workers=workers)
        loop = loop_of(recipe, case, images, compute, accelerator)
        passes = Step(loop, case.batch).passes()
        ways[f"ours {precision}"] = real_steps(loop).__next__
        ways[f"bare {precision}"] = Bare(case, passes, compute, device)
        if peer.INSTALLED:
            ways[f"lightly {precision}"] = peer.steps(case, images, precision, workers, device).__next__
    kind, clock = clock_of(device)
    seconds = in_turn(ways, rounds, clock)
    ratios = {f"ours {p} / bare {p}": seconds[f"ours {p}"] / seconds[f"bare {p}"] for p in precisions}
    for ours, theirs in (("bf16", "fp32"), ("fp32", "fp32"), ("bf16", "bf16")):
        if peer.INSTALLED and {ours, theirs} <= {*precisions}:
            name = f"lightly {theirs} / ours {ours}"
            ratios[name] = seconds[f"lightly {theirs}"] / seconds[f"ours {ours}"]
    return {
        "clock": kind,
        "layouts": {precision: compute.layout for precision, compute in found.items()},
        "ms": {name: quartiles(values * 1e3, 2) for name, values in seconds.items()},
        "images_per_second": {name: round(case.batch / float(np.median(took)), 1) for name, took in seconds.items()},
        "mean_to_median": {name: round(float(took.mean() / np.median(took)), 3) for name, took in seconds.items()},
        "ratios": {name: quartiles(values, 3) for name, values in ratios.items()},
    }


class Watched:
    """The steps of a loader, with when each was asked for and when it was there."""

    def __init__(self, steps: Callable[[int, int], Iterator[list[Batch]]], clock: Callable[[], float]) -> None:
        self.steps, self.clock = steps, clock
        self.asked: list[float] = []
        self.there: list[float] = []

    def __call__(self, first: int, last: int) -> Iterator[list[Batch]]:
        steps = self.steps(first, last)
        while True:
            self.asked.append(self.clock())
            batches = next(steps, None)
            if batches is None:
                return
            self.there.append(self.clock())
            yield batches


def whole(case: Case, images: Images, compute: Compute, workers: int | None, steps: int) -> dict[str, Any]:
    """A real run of so many steps; the first tenth of them, in which workers start, is left out."""
    anew()
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        recipe = recipe_of(case, config_of(case), compute, workers=workers, max_steps=steps, out=f"{folder}/run")
        method = config_of(case).build(case.network())
        monitor = Monitor(images, None, recipe.monitoring, recipe.seed)
        begun = prepare(recipe, method, images, monitor, meet())
        assert isinstance(begun, tuple)
        loop = begun[0]
        watched = Watched(loop.loader.steps, time.perf_counter)
        loop.loader.steps = watched  # type: ignore[method-assign]
        start = time.perf_counter()
        complete(begun, lambda trained: "")
        minutes = (time.perf_counter() - start) / 60
    anew()
    skipped = max(1, steps // 10)
    asked, there = np.array(watched.asked)[skipped:], np.array(watched.there)[skipped:]
    took, waited = np.diff(asked), there - asked[:-1]
    return {
        "steps": len(took),
        "workers": loop.loader.workers,
        "precision": compute.precision,
        "layout": compute.layout,
        "images_per_second": round(case.batch * len(took) / float(took.sum()), 1),
        "waited_share": round(float(waited.sum() / took.sum()), 4),
        "step_ms": quartiles(took * 1e3, 1),
        "mean_to_median": round(float(took.mean() / np.median(took)), 3),
        "minutes_with_monitoring": round(minutes, 2),
    }


def verdicts(measured: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every target, and what came of it."""
    found = []
    for row in measured:
        ratios = row["against"]["ratios"]
        for precision in PRECISIONS:
            name, target = f"lightly fp32 / ours {precision}", TARGETS.get((row["case"], precision))
            if target is not None and name in ratios:
                found.append(verdict(f"{row['case']}, {name}", ratios[name]["median"], target, at_most=False))
            name = f"ours {precision} / bare {precision}"
            if name in ratios:
                found.append(verdict(f"{row['case']}, {name}", ratios[name]["median"], BARE_TARGET))
        stall = row["whole"]["mean_to_median"]
        found.append(verdict(f"{row['case']}, whole run, mean / median step", stall, STALL_TARGET))
    return found


def say(row: dict[str, Any]) -> None:
    """Print a case."""
    pairs, run = row["against"], row["whole"]
    print(f"{row['case']}, {pairs['clock']} of a step (layouts {pairs['layouts']}):")
    for name, took in pairs["ms"].items():
        rate = pairs["images_per_second"][name]
        print(f"  {name:14} {took['median']:9.1f} ms [{took['q1']:.1f}, {took['q3']:.1f}]  {rate:.1f} images/s")
    for name, ratio in pairs["ratios"].items():
        print(f"  {name}: {ratio['median']:.3f} [{ratio['q1']:.3f}, {ratio['q3']:.3f}]")
    print(
        f"  a whole run, {run['workers']} workers, {run['precision']}: {run['images_per_second']} images/s, waited "
        f"{run['waited_share']:.1%} of the time, mean / median step {run['mean_to_median']:.3f}"
    )


def main() -> None:
    """Measure, print and write."""
    parser = command_of_cases(__file__, __doc__, list(CASES)[:3])
    parser.add_argument("--data", default=str(SAMPLE), help="images to train on (those that ship with the repository)")
    parser.add_argument("--engine", default="opencv", choices=("pillow", "opencv", "device"), help="of our views")
    parser.add_argument(
        "--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS, help="the last is the whole run's"
    )
    parser.add_argument("--steps", type=int, default=60, help="of the whole run (60)")
    parser.add_argument("--workers", type=int, help="of the whole run, instead of what it finds fitting")
    parser.add_argument("--workers-in-turn", type=int, default=0, help="of each loop that takes its turn (0)")
    options = parser.parse_args()
    on_threads(options.threads)
    check_engine(options.engine)
    device, images = meet(), open_images(options.data)
    about = circumstances(PACKAGES, device) | {
        "data": os.path.basename(options.data),
        "images": len(images),
        "engine": options.engine,
        "rounds": options.rounds,
    }
    if not peer.INSTALLED:
        print("lightly is not installed: nothing is compared with it")

    def measure(case: Case) -> dict[str, Any]:
        with using_engine(options.engine):
            pairs = against(case, images, options.precisions, options.workers_in_turn, options.rounds, device)
            last = options.precisions[-1]
            compute = Compute(last, pairs["layouts"][last], {})
            return {"against": pairs, "whole": whole(case, images, compute, options.workers, options.steps)}

    measure_cases(options, about, measure, say, verdicts)


if __name__ == "__main__":
    main()
