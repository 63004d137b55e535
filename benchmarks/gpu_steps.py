"""The parts of `gpu.py` that take steps in its own process: their time, memory, repeatability, and half precision."""

from __future__ import annotations

import json
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from limited import Row, caught, free
from method_steps import peak
from steps import CONFIGS, QUICK, Bare, Case, Noise, Step, anew, given_for, loop_of, recipe_of
from timing import clock_of, in_turn, quartiles
from torch import Tensor

from ssl_backbones.recipes.settings import OptimizerConfig
from ssl_backbones.train.precision import Compute, wait_for
from ssl_backbones.train.processes import accelerator_of, meet
from ssl_backbones.train.switches import set_switches
from ssl_backbones.views import using_engine

COMPARED = ("byol", "lewel_b", "moco_v2", "lewel_m")
GROUPS = 8
"""Groups of MoCo's split BatchNorm, as many as the papers' GPUs."""
LEAST = 16
"""Images below which a batch that does not fit is not halved again."""


@dataclass(frozen=True)
class Machine:
    """The device, and the sizes that it is measured at."""

    device: torch.device
    small: bool

    @property
    def precision(self) -> str:
        """The precision of the steps."""
        return "fp32" if self.small else "bf16"

    def case(self, backbone: str, size: int, batch: int) -> Case:
        """A network at a size; for a dry run the smallest that there is."""
        return QUICK if self.small else Case(f"{backbone}@{size}", backbone, size, batch)

    def count(self, many: int) -> int:
        """So many repetitions; for a dry run two."""
        return 2 if self.small else many


@contextmanager
def ready(name: str, case: Case, precision: str, layout: str = "channels_last", **fields: Any) -> Iterator[Step]:
    """The real step of a method by its name, on a batch that is ready on the host, with torch's switches as a run sets
    them; its memory is free afterwards, and operations need not be deterministic."""
    anew()
    device = meet()
    images = Noise(case.batch, 16)
    with given_for(images) as given, using_engine("opencv" if find_spec("cv2") else "pillow"):
        config = case.config(CONFIGS[name], **given, bn_splits=min(GROUPS, case.batch // 2))
        compute = Compute(precision, layout, {})  # type: ignore[arg-type]
        recipe = recipe_of(case, config, compute, **fields)
        set_switches(recipe, device)
        try:
            accelerator = accelerator_of(compute.precision, (), "unused")
            yield Step(loop_of(recipe, case, images, compute, accelerator), case.batch)
        finally:
            torch.use_deterministic_algorithms(False)
    anew()


def several(work: Callable[[], object], count: int) -> Callable[[], None]:
    """The work, so many times in a row, as a training run does it: the device may lag behind."""

    def repeated() -> None:
        for _ in range(count):
            work()

    return repeated


def throughput(name: str, case: Case, machine: Machine, count: int) -> Row:
    """A method's step beside the bare passes that it is made of: time, the host's share of it, and memory."""
    with ready(name, case, machine.precision) as step:
        several(step, 3)()
        above, held = peak(step, machine.device), step.held()
        wait_for(machine.device)
        start = time.perf_counter()
        several(step, count)()
        handed = time.perf_counter() - start
        wait_for(machine.device)
        whole = time.perf_counter() - start
        bare = Bare(case, step.passes(), step.loop.compute, machine.device)
        ways = {"step": several(step, count), "bare": several(bare, count)}
        seconds = in_turn(ways, machine.count(4), clock_of(machine.device)[1])
    each = {way: took / count for way, took in seconds.items()}
    return {
        "method": name,
        "batch": case.batch,
        "ms": quartiles(1e3 * each["step"], 2),
        "bare_ms": quartiles(1e3 * each["bare"], 2),
        "to_bare": quartiles(each["step"] / each["bare"], 3),
        "images_per_second": round(case.batch / float(np.median(each["step"]))),
        "host_share": round(handed / whole, 3),
        "held_gb": round(held / 1e9, 3),
        "peak_gb": round((held + above) / 1e9, 3),
        "gb_per_256_images": round(256 * above / case.batch / 1e9, 2),
    }


def halved(name: str, case: Case, machine: Machine, count: int) -> Row:
    """The throughput of a case, with half of its images as often as they do not fit."""
    while True:
        try:
            return throughput(name, case, machine, count)
        except torch.OutOfMemoryError:
            if case.batch < 2 * LEAST:
                raise
        free()
        case = replace(case, batch=case.batch // 2)


def steps50(machine: Machine) -> Iterator[Row]:
    """ResNet-50 at 224 px, 256 images or as many of them as fit."""
    for name in COMPARED:
        yield halved(name, machine.case("resnet50", 224, 256), machine, machine.count(5))
        free()


def steps18(machine: Machine) -> Iterator[Row]:
    """ResNet-18 at 64 px, 256 images."""
    for name in COMPARED:
        yield throughput(name, machine.case("resnet18", 64, 256), machine, machine.count(20))
        free()


def switches(machine: Machine) -> Iterator[Row]:
    """BYOL's step with one of torch's switches or of our choices moved, against its bare passes as they are."""
    ways: dict[str, Row] = {
        "as it is": {},
        "without cudnn.benchmark": {},
        "contiguous": {"layout": "contiguous"},
        "fp32": {"precision": "fp32"},
        "LARS": {"optimizer": OptimizerConfig("lars", 1e-3)},
    }
    case = machine.case("resnet50", 224, 128)
    for what, fields in ways.items():
        with ready("byol", case, **{"precision": machine.precision, **fields}) as step:
            torch.backends.cudnn.benchmark &= what != "without cudnn.benchmark"
            seconds = in_turn({what: several(step, 3)}, machine.count(4), clock_of(machine.device)[1])[what] / 3
        yield {"what": what, "batch": case.batch, "ms": quartiles(1e3 * seconds, 2)}
        free()


def waits(machine: Machine) -> Iterator[Row]:
    """The calls within a step that wait for the device, by torch's own watch, of every method; none on a CPU."""
    for name in CONFIGS:
        yield caught({"method": name}, partial(waits_of, name, machine))


def waits_of(name: str, machine: Machine) -> Row:
    """The lines of a method's step that wait for the device, and how often each does."""
    with ready(name, machine.case("resnet18", 64, 32), machine.precision) as step:
        several(step, machine.count(2))()
        wait_for(machine.device)
        with warnings.catch_warnings(record=True) as seen, watched(machine.device):
            warnings.simplefilter("always")
            step()
    places = Counter(f"{Path(one.filename).name}:{one.lineno}" for one in seen if "synchroniz" in str(one.message))
    return {"waits": dict(places)}


@contextmanager
def watched(device: torch.device) -> Iterator[None]:
    """Context manager: torch warns of each call that waits for a GPU."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def state_after(name: str, case: Case, machine: Machine, steps: int, deterministic: bool) -> dict[str, Tensor]:
    """The state of a method after its first steps, the same steps each time."""
    with ready(name, case, machine.precision, deterministic=deterministic) as step:
        several(step, steps)()
        return {key: value.detach().cpu().clone() for key, value in step.loop.method.state_dict().items()}


def difference(ones: dict[str, Tensor], others: dict[str, Tensor]) -> Row:
    """The tensors in which two states differ, and by how much at most."""
    names = [key for key, value in ones.items() if not torch.equal(value, others[key])]
    most = max((float((ones[key].double() - others[key].double()).abs().max()) for key in names), default=0.0)
    return {"tensors_that_differ": len(names), "of": len(ones), "largest": most, "some": names[:3]}


def repeatability(machine: Machine) -> Iterator[Row]:
    """The same steps twice, as they are and by deterministic operations; and the operations that have no such form."""
    for case in (machine.case("resnet18", 64, 64), machine.case("resnet50", 224, 32)):
        for deterministic in (False, True):
            about = {"case": case.name, "deterministic": deterministic}
            yield caught(about, partial(twice, "lewel_b", case, machine, deterministic))
    for name in CONFIGS:
        yield caught({"method": name}, partial(lacking, name, machine))


def twice(name: str, case: Case, machine: Machine, deterministic: bool) -> Row:
    """The difference between the same steps of a method, taken twice."""
    one, other = (state_after(name, case, machine, 4, deterministic) for _ in range(2))
    return difference(one, other)


def lacking(name: str, machine: Machine) -> Row:
    """The operations of a method's step of which torch knows no deterministic form."""
    with ready(name, machine.case("resnet18", 64, 16), "fp32", deterministic=True) as step:
        torch.use_deterministic_algorithms(True, warn_only=True)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            step()
    messages = (str(one.message) for one in seen)
    named = {said.split(" does not have")[0][-60:] for said in messages if "deterministic" in said}
    return {"no_deterministic_form": sorted(named)}


def halves(machine: Machine) -> Iterator[Row]:
    """fp16 with its scaler: that it trains, what it leaves out, and that its state goes through JSON."""
    precision = "fp16" if machine.device.type == "cuda" else "fp32"
    for name in COMPARED:
        with ready(name, machine.case("resnet18", 64, 128), precision) as step:
            several(step, machine.count(40))()
            loop = step.loop
            scaler = None if loop.accelerator.scaler is None else loop.accelerator.scaler.state_dict()
            yield {
                "method": name,
                "precision": precision,
                "steps": loop.step,
                "trouble": loop.watch.trouble(),
                **loop.watch.skipped(),
                "loss": round(loop.means.close()["loss"], 4),
                "scaler_through_json": scaler is None or json.loads(json.dumps(scaler)) == scaler,
            }
