"""Measure each method's step against its bare passes and its base: python benchmarks/method_steps.py

In every case the real step (`Loop.descend` on one batch, ready on the host in uint8: to the device, normalised,
forward, backward, optimiser, targets, queues) takes its turn, in one process, with the bare passes: the same backbone
sent through as often, in the same order and mode, with one backward and the optimiser, and no heads. The pairs of a
method and its base have projectors of the same widths, in the precision that is asked for and the layout that is
faster for the base. With one thread on a CPU, CPU time is what counts.

Memory is what stays between steps (weights, targets, queues, the optimiser's state) and, above that, the most that
torch's allocator held during one step: on a CPU the sum of the profiler's allocations less what was freed, which other
work does not move; on a GPU torch's own count. Both at this batch and, straight on from half of it, at 256 images.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from steps import (
    CASES,
    CONFIGS,
    Bare,
    Case,
    Noise,
    Pass,
    Step,
    anew,
    command_of_cases,
    given_for,
    loop_of,
    measure_cases,
    recipe_of,
)
from timing import circumstances, clock_of, in_turn, on_threads, quartiles, verdict
from torch.profiler import ProfilerActivity, profile

from ssl_backbones.data.placement import to_device
from ssl_backbones.train.precision import choose
from ssl_backbones.train.processes import accelerator_of, meet

PACKAGES = ("torch", "timm", "accelerate", "numpy")
BASES = {"lewel_b": "byol", "lewel_m": "moco_v2", "flags": "moco_v2"}
PAIRED = ("byol", "lewel_b", "moco_v2", "lewel_m", "flags")
EVERY = "resnet18@64"
"""The case in which every method is measured; elsewhere those that are compared with a base."""
CROPPED = ("swav", "dino")
MULTI_CROP = "resnet18@160"
"""The case of methods that show small crops beside two views, which want a map of them."""
BARE_TARGET = 1.10
"""A multi-crop method's time to that of its bare passes, of all crops, at most."""
TARGETS = {
    ("resnet18@64", "lewel_b"): 1.04,
    ("resnet18-3x3@32", "lewel_b"): 1.01,
    ("resnet8@96", "lewel_b"): 1.30,
    ("resnet50@224", "lewel_b"): 1.10,
    ("resnet50@224", "lewel_m"): 1.05,
}
"""A method's time to its base's, at most."""
MEMORY_TARGET = 1.10
"""The same of peak memory, for LEWEL's two."""
MANY = 256
"""Images for which memory is worked out."""


def steps_of(case: Case, names: Sequence[str], precision: str, layout: str, device: torch.device) -> dict[str, Step]:
    """Every method of that name, ready to take steps, all in one precision and layout."""
    images = Noise(case.batch, case.size)
    with given_for(images) as given:
        configs = [case.config(CONFIGS[name], **given) for name in names]
        base = configs[0].build(case.network()).train()
        dataset = base.dataset(images, case.size, 0)
        content = dataset.on_device(to_device(Step.batch_of(dataset, case.batch).content, device))
        compute = choose(base, content, device, precision, layout)
        print(f"{case.name}, batch {case.batch}: {compute}", flush=True)
        anew()
        accelerator = accelerator_of(compute.precision, (), "unused")
        loops = [loop_of(recipe_of(case, one, compute), case, images, compute, accelerator) for one in configs]
        return {one.name: Step(loop, case.batch) for one, loop in zip(configs, loops, strict=True)}


def peak(step: Step, device: torch.device) -> int:
    """The most bytes that one step held above what was held before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    assert profiler.profiler is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(0, int(np.cumsum(changes).max()))


def memory(step: Step, batch: int, device: torch.device) -> dict[str, float]:
    """Megabytes that stay, and that a step takes above them, at this batch and at a large one."""
    half = Step(step.loop, batch // 2)
    half()
    small, full, held = peak(half, device), peak(step, device), step.held()
    many = full + (full - small) / (batch - batch // 2) * (MANY - batch)
    parts = {"held": held, "step": full, "peak": held + full, f"peak_at_{MANY}_images": held + many}
    return {name: round(value / 1e6, 1) for name, value in parts.items()}


def measure(
    case: Case, names: Sequence[str], precision: str, layout: str, rounds: int, device: torch.device
) -> dict[str, Any]:
    """Times and memory of some methods in one case, all in turn."""
    steps = steps_of(case, names, precision, layout, device)
    passes = {name: step.passes() for name, step in steps.items()}
    compute = next(iter(steps.values())).loop.compute
    bare = {kind: Bare(case, kind, compute, device) for kind in dict.fromkeys(passes.values())}
    kind, clock = clock_of(device)
    labels = {one: f"bare {number}" for number, one in enumerate(bare)}
    seconds = in_turn({**steps, **{labels[one]: work for one, work in bare.items()}}, rounds, clock)
    rows = []
    for name, step in steps.items():
        own, base = seconds[name], BASES.get(name)
        rows.append(
            {
                "method": name,
                "passes": counted(passes[name]),
                "ms": quartiles(own * 1e3, 2),
                "bare_ms": quartiles(seconds[labels[passes[name]]] * 1e3, 2),
                "to_bare": quartiles(own / seconds[labels[passes[name]]], 3),
                "mean_to_median": round(float(own.mean() / np.median(own)), 3),
                "memory_mb": memory(step, case.batch, device),
                **({"base": base, "to_base": quartiles(own / seconds[base], 3)} if base in steps else {}),
            }
        )
    return {"precision": compute.precision, "layout": compute.layout, "clock": kind, "methods": rows}


def methods_of(case: Case) -> Sequence[str]:
    """The methods that are measured in a case where none are named."""
    if case.name == EVERY:
        return [*PAIRED, *sorted(set(CONFIGS) - set(PAIRED))]
    return CROPPED if case.name == MULTI_CROP else PAIRED


def counted(passes: Sequence[Pass]) -> dict[str, int]:
    """The number of images that go through the backbone, by pass."""
    found: dict[str, int] = {}
    for one in passes:
        way = "forward and backward" if one.learns else f"forward alone, {'batch' if one.training else 'averaged'} BN"
        found[way] = found.get(way, 0) + one.shape[0]
    return found


def verdicts(measured: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every target, and what came of it."""
    found = []
    for case in measured:
        rows = {row["method"]: row for row in case["methods"]}
        for name, row in rows.items():
            if case["case"] == MULTI_CROP and name in CROPPED:
                found.append(verdict(f"{MULTI_CROP}, {name} / bare, time", row["to_bare"]["median"], BARE_TARGET))
            what = f"{case['case']}, {name} / {row.get('base')}"
            if (case["case"], name) not in TARGETS or "to_base" not in row:
                continue
            found.append(verdict(f"{what}, time", row["to_base"]["median"], TARGETS[case["case"], name]))
            for part in ("peak", f"peak_at_{MANY}_images"):
                ratio = row["memory_mb"][part] / rows[row["base"]]["memory_mb"][part]
                found.append(verdict(f"{what}, memory, {part.replace('_', ' ')}", ratio, MEMORY_TARGET))
    return found


def say(case: dict[str, Any]) -> None:
    """Print a case as a table."""
    print(f"{case['case']}, {case['precision']}, {case['layout']}, {case['clock']} of a step:")
    for row in case["methods"]:
        bare, base = row["to_bare"], row.get("to_base")
        beside = f"  {base['median']:.3f} [{base['q1']:.3f}, {base['q3']:.3f}] x {row['base']}" if base else ""
        print(
            f"  {row['method']:13} {row['ms']['median']:9.1f} ms  {bare['median']:.3f} [{bare['q1']:.3f}, "
            f"{bare['q3']:.3f}] x bare  peak {row['memory_mb']['peak']:.0f} MB{beside}"
        )


def main() -> None:
    """Measure, print and write."""
    parser = command_of_cases(__file__, __doc__, list(CASES))
    parser.add_argument("--methods", nargs="+", choices=list(CONFIGS), help="these alone; a base comes first")
    parser.add_argument("--precision", default="bf16", choices=("auto", "fp32", "bf16", "fp16"))
    parser.add_argument("--layout", default="auto", choices=("auto", "contiguous", "channels_last"))
    options = parser.parse_args()
    device = meet()
    on_threads(options.threads)

    def timed(case: Case) -> dict[str, Any]:
        names = options.methods or methods_of(case)
        start = time.perf_counter()
        found = measure(case, names, options.precision, options.layout, options.rounds, device)
        return found | {"minutes": round((time.perf_counter() - start) / 60, 2)}

    measure_cases(options, circumstances(PACKAGES, device) | {"rounds": options.rounds}, timed, say, verdicts)


if __name__ == "__main__":
    main()
