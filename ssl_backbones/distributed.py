"""Collectives over the processes of a run; alone, every function is the identity."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ssl_backbones.credentials import without_credentials
from ssl_backbones.files import told
from ssl_backbones.narrator import NARRATOR, Doing
from ssl_backbones.refusal import Refusal

T = TypeVar("T")
PATIENCE = timedelta(minutes=10)
"""Silence after which a process takes another for dead; one whose connection broke is not waited for."""
REPORTS = timedelta(minutes=1)
"""Time after which a process that others wait for tells them that it is at work."""


class OtherRankError(Refusal, RuntimeError):
    """Raised in all other processes when one has failed."""


def launched() -> int:
    """The number of processes that a launcher says it has started, which may not have met yet."""
    said = os.environ.get("WORLD_SIZE", "")
    return int(said) if said.isascii() and said.isdigit() else 1


def world_size() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The rank of this process."""
    return dist.get_rank() if world_size() > 1 else 0


class HostGroup:
    """The group in which processes talk from host to host, beside their devices, and the world that it was made for."""

    world: dist.ProcessGroup | None = None
    group: dist.ProcessGroup | None = None


def by_hosts() -> dist.ProcessGroup | None:
    """The host group of the processes that have met; None, for the group that they met in, where there is none."""
    return HostGroup.group if HostGroup.world is dist.group.WORLD else None


def sendable(tensor: Tensor) -> Tensor:
    """The tensor (...) itself or, where processes talk by NCCL, which knows no CPU, its copy on this process's GPU."""
    return tensor.cuda() if dist.get_backend() == "nccl" else tensor


@torch.no_grad()
def sum_over_processes(part: Tensor) -> Tensor:
    """The sum of a tensor (...) over all processes, without gradient, on its own device."""
    if world_size() == 1:
        return part
    dist.all_reduce(total := sendable(part.clone()))
    return total.to(part.device)


@torch.no_grad()
def gather(rows: Tensor) -> Tensor:
    """The rows (B, ...) of all processes in rank order, (world * B, ...), without gradient, on their own device."""
    if world_size() == 1:
        return rows.detach()
    own = sendable(rows.detach().contiguous())
    parts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(parts, own)
    return torch.cat(parts).to(rows.device)


def gather_objects(own: T) -> list[T]:
    """The objects of all processes in rank order, each sent as a pickle between processes that trust each other."""
    if world_size() == 1:
        return [own]
    everyone: list[T] = [own] * world_size()
    dist.all_gather_object(everyone, own, group=by_hosts())
    return everyone


def first_decides(work: Callable[[], T]) -> T:
    """Do `work` in the first process and return its result in all; an error there is raised in all."""
    if world_size() == 1:
        return work()
    answer: list[Any] = [None, None, True]
    error: Exception | None = None
    if rank() == 0:
        try:
            with reporting(lambda: dist.broadcast_object_list([None, None, False], group=by_hosts())):
                answer[0] = work()
        except Exception as failure:
            error, answer[1] = failure, told(failure) if isinstance(failure, OSError) else str(failure)
        dist.broadcast_object_list(answer, group=by_hosts())
    else:
        answer[2] = False
        while not answer[2]:
            dist.broadcast_object_list(answer, group=by_hosts())
    if error is not None:
        raise error
    if answer[1] is not None:
        raise OtherRankError(answer[1])
    decided: T = answer[0]
    return decided


@contextmanager
def reporting(tell: Callable[[], object]) -> Iterator[None]:
    """Context manager: tell those who wait for this process, at intervals, that it is at work, and alive."""
    over = threading.Event()
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    def report() -> None:
        if device is not None:
            torch.cuda.set_device(device)  # a new thread would speak by the first
        with suppress(RuntimeError):  # a process that is gone is met again by the answer
            while not over.wait(REPORTS.total_seconds()):
                tell()

    thread = threading.Thread(target=report, name="reports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def in_every_process(work: Callable[[], T]) -> list[T]:
    """Do `work` in every process and return the results in rank order, in all; an error in one is raised in all.

    The work itself asks no other process; one that takes long reports to those that are done.
    """
    own: list[Any] = [None, None]
    failure: Exception | None = None
    try:
        with reporting(lambda: gather_objects(None)) if world_size() > 1 else nullcontext():
            own[0] = work()
    except Exception as error:
        failure, own[1] = error, told(error) if isinstance(error, OSError) else str(error)
    while None in (everyone := gather_objects(own)):
        pass
    if failure is not None:
        raise failure
    for _, reason in everyone:
        if reason is not None:
            raise OtherRankError(reason)
    return [result for result, _ in everyone]


def made_everywhere(make: Callable[[], T]) -> T:
    """Make something too large to be sent in every process, each for itself; an error in one is raised in all."""
    made: list[T] = []
    in_every_process(lambda: made.append(make()))
    return made[0]


def first_here() -> bool:
    """True in the first process of each machine."""
    return int(os.environ.get("LOCAL_RANK", rank())) == 0


def own_rows(everyone: Tensor, count: int) -> Tensor:
    """This process's rows (count, ...) of those of all processes in rank order (world * count, ...)."""
    return everyone[rank() * count : (rank() + 1) * count]


@torch.no_grad()
def same_permutation(size: int, device: torch.device) -> Tensor:
    """A random order of `size` rows, the same in every process: the one that rank 0 drew."""
    order = torch.randperm(size, device=device)
    if world_size() > 1:
        dist.broadcast(order, src=0)
    return order


@torch.no_grad()
def share_first(tensor: Tensor) -> None:
    """Fill the tensor (...) with what the first process has in its own."""
    if world_size() > 1:
        dist.broadcast(sent := sendable(tensor), src=0)
        tensor.copy_(sent)


class AllReduceSum(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, part: Tensor) -> Tensor:
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class AllGather(torch.autograd.Function):
    """The rows of all processes; the gradient of a process's own is the sum of what all make of them."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows: Tensor) -> Tensor:
        return gather(rows)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


def gather_with_gradient(rows: Tensor) -> Tensor:
    """The rows (B, ...) of all processes in rank order, (world * B, ...); every process's loss reaches back to all.

    Where the gradients of processes are averaged afterwards, as DistributedDataParallel does, they are those of the
    mean of the processes' losses. Rows of half precision come in single, in which their gradients are then summed.
    """
    if world_size() == 1:
        return rows
    everyone: Tensor = AllGather.apply(rows.to(torch.promote_types(rows.dtype, torch.float32)))
    return everyone


def silent() -> bool:
    """True in all processes but the first, also before they have met."""
    return rank() > 0 if world_size() > 1 else launched() > 1 and os.environ.get("RANK", "0") != "0"


def say(sentence: str) -> None:
    """Tell a person, once for all processes."""
    if not silent():
        print(without_credentials(sentence), flush=True)
        NARRATOR.heard()


@contextmanager
def doing(what: Doing, *, at_once: bool = False) -> Iterator[None]:
    """Context manager: this is being done, which the first process tells whenever it is silent for ten seconds.

    With `at_once` it is told at its beginning as well.
    """
    if silent():
        yield
        return
    if isinstance(what, str):
        what = without_credentials(what)
    if at_once:
        say(what if isinstance(what, str) else what())
    with NARRATOR.during(what):
        yield
