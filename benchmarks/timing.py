"""Timing of the benchmarks: medians, quartiles, and the circumstances."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_backbones.cores import VARIABLE

Work = Callable[[], object]
SAMPLE = Path(__file__).parents[1] / "training" / "sample_photos" / "train.parquet"
"""The images that ship with the repository."""


def command(script: str, doc: str | None, rounds: int, of: str = "of every way, in turn") -> argparse.ArgumentParser:
    """The options that a benchmark shares with the others: its rounds, and the file to write."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"{of} ({rounds})")
    out = Path(script).parent / "results" / f"{Path(script).stem}.json"
    parser.add_argument("--out", type=Path, default=out, help="the file to write")
    return parser


def quartiles(values: Sequence[float] | np.ndarray, digits: int) -> dict[str, float]:
    """The median and the quartiles."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return {"q1": round(low, digits), "median": round(median, digits), "q3": round(high, digits)}


def circumstances(packages: Sequence[str], device: torch.device | None = None) -> dict[str, Any]:
    """The machine, the date and the versions of this measurement."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    on_gpu = {"device": torch.cuda.get_device_name(device)} if device is not None and device.type == "cuda" else {}
    return {
        "hardware": models[0] if models else platform.machine(),
        **on_gpu,
        "bf16_units": {"avx512_bf16": "avx512_bf16" in flags, "amx_bf16": "amx_bf16" in flags},
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": [round(load, 1) for load in os.getloadavg()],
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in packages},
    }


def installed(name: str) -> str:
    """A package's version, or that there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def on_threads(count: int) -> None:
    """Compute on so many threads, in the runs of this process too; with one, other work hardly moves the CPU time."""
    os.environ[VARIABLE] = str(count)
    torch.set_num_threads(count)


def clock_of(device: torch.device) -> tuple[str, Callable[[], float]]:
    """The clock: that of the CPU where one thread does the work, which other work hardly moves; or a
    watch's, once the device has done what it was given."""
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return "CPU time", time.process_time

    def watch() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return "wall time", watch


def in_turn(ways: Mapping[str, Work], rounds: int, clock: Callable[[], float], warm: int = 1) -> dict[str, np.ndarray]:
    """Seconds of each way in each round; each round begins with another way, so that none always follows the same."""
    for _ in range(warm):
        for work in ways.values():
            work()
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            start = clock()
            ways[name]()
            seconds[name].append(clock() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def verdict(what: str, reached: float, target: float, at_most: bool = True) -> dict[str, Any]:
    """The verdict on a ratio: kept, or missed by a share of the target."""
    missed = max(0.0, float(reached / target - 1 if at_most else 1 - reached / target))
    return {
        "what": what,
        "target": f"at {'most' if at_most else 'least'} {target:g}",
        "reached": round(reached, 3),
        "met": missed == 0,
        "missed_by": f"{missed:.1%}",
    }


def say_verdicts(verdicts: Sequence[Mapping[str, Any]]) -> None:
    """Print what was promised, what came out, and what that makes."""
    for one in verdicts:
        came = "met" if one["met"] else f"MISSED by {one['missed_by']}"
        print(f"  {one['what']}: {one['reached']:.3f} (target: {one['target']}): {came}")


def write(results: Mapping[str, Any], path: Path) -> None:
    """Write results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
