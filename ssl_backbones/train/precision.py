"""The precision and the memory layout in which a network runs fastest here, found by trying."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from statistics import median
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ssl_backbones.data.placement import Layout, in_layout, laid_out
from ssl_backbones.distributed import doing, first_decides
from ssl_backbones.products import network_products
from ssl_backbones.refusal import Refusal

Precision = Literal["fp32", "bf16", "fp16"]
Way = tuple[Precision, Layout]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
ROUNDS = 7
"""Times that each way still in question is timed, in turn with the others, if there is time."""
MARGIN = 0.9
"""Leave the plainest way, the first, only for one that takes under 90 % of its time; less is noise."""
HOPELESS = 1.5
"""Drop a way that takes more than this many times the fastest one's time."""
BUDGET = 0.05
"""Share of the time that the run's steps will take; one round is always timed."""
FOR_THE_FORECAST = 0.01
"""Share of the run's steps that are timed where there is nothing to choose."""


class PrecisionError(Refusal, ValueError):
    """A precision that the device lacks."""


@dataclass(frozen=True)
class Compute:
    """The precision and layout of a run, and the seconds that a step took in each way that was tried."""

    precision: Precision
    layout: Layout
    tried: dict[str, float]
    threads: int = field(default_factory=torch.get_num_threads)
    """CPU threads; the results of sums depend on their number."""

    @property
    def way(self) -> str:
        """The precision and layout, as they are called where they were tried."""
        return called(self.precision, self.layout)

    def kept(self) -> dict[str, Any]:
        """The part that a checkpoint holds, so that the rest of a run is computed alike."""
        return {"precision": self.precision, "layout": self.layout, "threads": self.threads}

    def __str__(self) -> str:
        chosen = f"{self.precision}, {self.layout.replace('_', ' ')}"
        others = ", ".join(f"{way} {seconds * 1e3:.0f} ms" for way, seconds in self.tried.items())
        return f"{chosen} (a step took: {others})" if others else chosen


def choose(
    method: nn.Module,
    batch: Any,
    device: torch.device,
    precision: str = "auto",
    layout: str = "auto",
    steps: int = 1000,
) -> Compute:
    """The precision and layout asked for, or the faster ones of those left open, measured on a copy of the method.

    Ways are timed in turn, step by step, so that whatever else the machine does meets all of them alike; `steps` are
    those of the run, of whose time the trial takes a small part. One way alone is timed for the forecast, if the run is
    long.
    """
    precisions = available(device) if precision == "auto" else (check_precision(precision, device),)
    layouts: tuple[Layout, ...] = get_args(Layout) if layout == "auto" else (layout,)  # type: ignore[assignment]
    ways = list(product(precisions, layouts))
    if len(ways) == 1 and FOR_THE_FORECAST * steps < 2:
        return Compute(*ways[0], tried={})
    seconds = Trial(method, batch, device).compare(ways, steps)
    first = seconds[ways[0]]
    shares = {  # of the first way's time in the same round
        way: median(own / plainest for own, plainest in zip(timings, first, strict=True))
        for way, timings in seconds.items()
        if len(timings) == len(first)
    }
    best = min(shares, key=lambda way: shares[way] * (MARGIN if way == ways[0] else 1))
    tried = {called(*way): median(seconds[way]) for way in ways}
    return Compute(*best, tried=tried)


def called(precision: Precision, layout: Layout) -> str:
    """The words for a way: "bf16 channels last"."""
    return f"{precision} {layout.replace('_', ' ')}"


def available(device: torch.device) -> tuple[Precision, ...]:
    """The precisions worth trying: on a GPU half ones, on a CPU bf16 beside fp32 where its instructions know it."""
    if device.type == "cuda":
        return ("bf16",) if torch.cuda.is_bf16_supported(including_emulation=False) else ("fp16",)
    return ("fp32", "bf16") if device.type == "cpu" and computes_bf16() else ("fp32",)


def computes_bf16() -> bool:
    """True if this CPU multiplies bf16 in hardware; oneDNN emulates it elsewhere, about ten times slower than fp32.

    oneDNN's own answer is no measure on x86, where it is yes for every CPU with AVX-512.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        known = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
        return any(asks is not None and asks() for asks in known)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def check_precision(precision: str, device: torch.device) -> Precision:
    """The precision, or PrecisionError where the device lacks it."""
    lacking = {
        "fp16": device.type == "cpu",
        "bf16": device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False),
    }
    if lacking.get(precision, False):
        other = "bf16" if precision == "fp16" else "fp16"
        raise PrecisionError(f"this {device.type} device does not train in {precision}; use {other}, fp32 or auto")
    return precision  # type: ignore[return-value]


class Trial:
    """A copy of a method that takes the same step in one way and another."""

    def __init__(self, method: nn.Module, batch: Any, device: torch.device) -> None:
        self.method = copy.deepcopy(method).to(device)
        self.batch, self.device = batch, device

    def compare(self, ways: Sequence[Way], steps: int) -> dict[Way, list[float]]:
        """The seconds of each way in each round, after a step to warm up; a way that was dropped has fewer."""
        spent = 0.0
        for way in ways:
            with doing(f"Trying a step in {called(*way)}"):
                spent += self.seconds(way)
        seconds: dict[Way, list[float]] = {way: [] for way in ways}
        contenders = list(ways)
        while contenders:
            for way in contenders:
                seconds[way].append(self.seconds(way))
            spent += sum(seconds[way][-1] for way in contenders)
            contenders = first_decides(partial(next_round, seconds, contenders, BUDGET * steps, spent))
        return seconds

    def seconds(self, way: Way) -> float:
        """The time of a forward and a backward pass in one way."""
        precision, layout = way
        laid_out(self.method, layout)
        batch = in_layout(self.batch, layout)

        def step() -> None:
            passes(self.method, batch, precision, self.device)
            self.method.zero_grad()

        return timed(step, self.device)


def passes(method: nn.Module, batch: Any, precision: str, device: torch.device) -> None:
    """Make the forward and the backward pass of a step over a batch."""
    with network_products(device):
        loss_of(method, batch, precision, device).backward()


def loss_of(method: nn.Module, batch: Any, precision: str, device: torch.device) -> Tensor:
    """The loss () of a batch in a precision."""
    with torch.autocast(device.type, DTYPES.get(precision), enabled=precision in DTYPES):
        loss: Tensor = method(batch)["loss"]
    return loss


def next_round(seconds: dict[Way, list[float]], contenders: Sequence[Way], steps: float, spent: float) -> list[Way]:
    """The ways to time once more, the plainest among them; none after ROUNDS or the time of so many of the run's steps.

    By the clock of one process: steps are taken together, so all have to take as many.
    """
    plainest = next(iter(seconds))
    fastest = min(median(seconds[way]) for way in contenders)
    left = [way for way in contenders if way == plainest or median(seconds[way]) < HOPELESS * fastest]
    a_round = sum(seconds[way][-1] for way in left)
    over = len(seconds[plainest]) == ROUNDS or spent + a_round > steps * fastest
    return [] if over or len(left) == 1 else left


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds that some work takes."""
    wait_for(device)
    start = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    """Return once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
