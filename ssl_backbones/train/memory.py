"""Memory that ran out: what was being done, and what to change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ssl_backbones.distributed import world_size
from ssl_backbones.methods.method import Method
from ssl_backbones.recipes.recipe import Run
from ssl_backbones.refusal import Refusal

OF_THE_HOST = re.compile(r"can't allocate memory|not enough memory|DefaultCPUAllocator")


class NoRoomError(Refusal, RuntimeError):
    """A batch that does not fit into memory."""


@contextmanager
def within_memory(run: Run, method: Method, precision: str) -> Iterator[None]:
    """Make a sentence of memory that runs out, with the batch that took it and the ways to take less."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise NoRoomError(sentence(run, method, precision)) from error
    except RuntimeError as error:  # torch has no type for it where memory is the host's
        if not OF_THE_HOST.search(str(error)):
            raise
        raise NoRoomError(sentence(run, method, precision)) from error


def sentence(run: Run, method: Method, precision: str) -> str:
    """What to say of a batch that does not fit."""
    parts = run.accumulation * world_size()
    at_once = run.batch_size // parts
    effect = "which keeps the batch" if method.accumulation_is_exact else "by which this method compares fewer images"
    smaller = f"raise --accumulation from {run.accumulation} to {2 * run.accumulation}, {effect}, or "
    return (
        f"out of memory with a batch of {run.batch_size} images of {run.size} px in {precision}, {at_once} at a time "
        f"in each of {world_size()} process{'es' if world_size() > 1 else ''}: "
        f"{smaller if at_once % 2 == 0 else ''}lower --batch-size or --size, or compute in --precision bf16, and "
        "begin anew with --out if steps were made already"
    )
