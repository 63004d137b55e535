"""Torch's switches between the fastest ways of a GPU and those that repeat to the last bit; a CPU knows neither."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ssl_backbones.recipes.recipe import Run
from ssl_backbones.refusal import Refusal

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Read when cuBLAS starts; its products repeat with a workspace of this size alone."""
NO_FORM = re.compile(r"(\S+) does not have a deterministic implementation")
"""Words of torch for an operation that cannot be repeated."""


class NotRepeatableError(Refusal, RuntimeError):
    """An operation without a deterministic form in a run that asks for those."""


def set_switches(run: Run, device: torch.device) -> None:
    """Set the switches for a run on a device: to find the fastest convolutions, or to repeat where it asks for that."""
    on_gpu = device.type == "cuda"
    repeat = on_gpu and run.deterministic
    if repeat:
        os.environ.setdefault(WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(repeat)
    # Nothing here reads memory that it has not written, so torch need not fill it.
    torch.utils.deterministic.fill_uninitialized_memory = not repeat  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = on_gpu and run.same_shapes and not repeat


@contextmanager
def any_shape() -> Iterator[None]:
    """Context manager: no search for the fastest convolutions, which begins anew with every other size of image."""
    searches = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = searches


@contextmanager
def repeatable() -> Iterator[None]:
    """Context manager: raise NotRepeatableError for an operation that has no deterministic form, with its name."""
    try:
        yield
    except RuntimeError as error:
        if (found := NO_FORM.search(str(error))) is None:
            raise
        raise NotRepeatableError(
            f"{found[1]} has no deterministic form on this device: leave out --deterministic, or choose a method or a "
            "network that does not use it"
        ) from error
