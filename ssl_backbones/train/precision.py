"""In which numbers and in which layout a network runs fastest here: found out by trying."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ssl_backbones.refusal import Refusal

Precision = Literal["fp32", "bf16", "fp16"]
Layout = Literal["contiguous", "channels_last"]
MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
TRIALS = 3
MARGIN = 0.9
"""Another way than the first, the plainest, must take less than this share of its time: a wink is no reason."""


class PrecisionError(Refusal, ValueError):
    """A precision that the device lacks."""


@dataclass(frozen=True)
class Compute:
    """How a network is computed, and how long a step took in each way that was tried (in seconds)."""

    precision: Precision
    layout: Layout
    tried: dict[str, float]

    def __str__(self) -> str:
        chosen = f"{self.precision}, {self.layout.replace('_', ' ')}"
        others = ", ".join(f"{way} {seconds * 1e3:.0f} ms" for way, seconds in self.tried.items())
        return f"{chosen} (a step took: {others})" if others else chosen


def choose(
    method: nn.Module, batch: Any, device: torch.device, precision: str = "auto", layout: str = "auto"
) -> Compute:
    """The precision and layout asked for, or the faster ones of those left open, measured on a copy of the method."""
    precisions = available(device) if precision == "auto" else (check_precision(precision, device),)
    layouts: tuple[Layout, ...] = get_args(Layout) if layout == "auto" else (layout,)  # type: ignore[assignment]
    ways = list(product(precisions, layouts))
    if len(ways) == 1:
        return Compute(*ways[0], tried={})
    seconds = {way: seconds_per_step(method, batch, device, *way) for way in ways}
    best = min(seconds, key=lambda way: seconds[way] * (MARGIN if way == ways[0] else 1))
    return Compute(*best, tried={f"{name} {shape.replace('_', ' ')}": seconds[name, shape] for name, shape in ways})


def available(device: torch.device) -> tuple[Precision, ...]:
    """The precisions worth trying: half ones on a GPU; on a CPU bf16 beside fp32, as some compute it natively."""
    if device.type == "cuda":
        return ("bf16",) if torch.cuda.is_bf16_supported(including_emulation=False) else ("fp16",)
    return ("fp32", "bf16") if device.type == "cpu" else ("fp32",)


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


def laid_out(content: Any, layout: Layout) -> Any:
    """Nested content with every image tensor in the layout."""
    if isinstance(content, Tensor):
        return content.contiguous(memory_format=MEMORY_FORMATS[layout]) if content.ndim == 4 else content
    if isinstance(content, tuple) and hasattr(content, "_fields"):
        return type(content)(*(laid_out(value, layout) for value in content))
    if isinstance(content, list | tuple):
        return type(content)(laid_out(value, layout) for value in content)
    if isinstance(content, dict):
        return {name: laid_out(value, layout) for name, value in content.items()}
    return content


def seconds_per_step(
    method: nn.Module, batch: Any, device: torch.device, precision: Precision, layout: Layout
) -> float:
    """The median time of a forward and a backward pass on a copy, after one to warm up."""
    trial = copy.deepcopy(method).to(device, memory_format=MEMORY_FORMATS[layout])  # type: ignore[call-overload]
    batch = laid_out(batch, layout)

    def step() -> None:
        with torch.autocast(device.type, DTYPES.get(precision), enabled=precision in DTYPES):
            loss = trial(batch)["loss"]
        loss.backward()
        trial.zero_grad()

    step()
    return median(timed(step, device) for _ in range(TRIALS))


def timed(work: Callable[[], None], device: torch.device) -> float:
    """How long some work takes, in seconds."""
    wait_for(device)
    start = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    """Return once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
