"""Count the collectives of each method's step, and their bytes: python benchmarks/collectives.py

Two processes over gloo take real steps (`Loop.descend` under DistributedDataParallel, and the question whether to stop
that follows each); calls of torch.distributed are noted in the third step with their payload, that is, what one process
hands in. DistributedDataParallel's own reductions of gradients are noted by its hook. What comes by the log's lines,
checkpoints and monitoring, not by the step, is not in it.

For more processes the number of calls stays and every process keeps its images. A payload stays too, but for two kinds
that hold all processes' rows and grow with their number: the shared permutation, and the gradient of gathered rows.
Bytes that a process receives, of W processes: (W - 1) x payload from a gather, 2 (W - 1) / W x payload from a ring's
all-reduce, the payload of a broadcast. Between GPUs, torch's own SyncBatchNorm takes the place of the portable one and
of its three all-reduces and their gradients: one gather of 2C + 1 numbers, and one all-reduce of 2C backward. Under
"shuffle", groups of BatchNorm within a process are as many as `bn_splits` leaves for it; they change no collective.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from steps import CASES, CONFIGS, QUICK, Case, Noise, Step, anew, given_for, loop_of, recipe_of
from timing import circumstances, command, on_threads, write
from torch import Tensor, multiprocessing

from ssl_backbones.models.batch_norm import CrossReplicaBatchNorm
from ssl_backbones.train.loop import Loop
from ssl_backbones.train.precision import Compute
from ssl_backbones.train.processes import StopSignals, accelerator_of

PACKAGES = ("torch", "accelerate", "timm")
CALLS = {"all_gather": 1, "all_reduce": 0, "broadcast": 0}
"""torch.distributed's functions that are used, and which argument is the payload."""
GROWING = ("same_permutation", "AllGather.backward")
"""Callers whose payload holds the rows of all processes."""
PORTABLE = ("AllReduceSum.forward", "AllReduceSum.backward")
"""The calls that torch.nn.SyncBatchNorm makes in its own way between GPUs."""
GRADIENTS, WORLDS, WARM = "DistributedDataParallel", (2, 8, 64), 2
DEADLINE = timedelta(seconds=120)

Key = tuple[str, str, int]
"""The caller, the collective, and its bytes."""


class Tally:
    """The calls of one step, and the synchronised BatchNorms that it went through."""

    def __init__(self) -> None:
        self.calls: Counter[Key] = Counter()
        self.norms: Counter[tuple[int, bool]] = Counter()

    def reduced(self, bucket: torch._C._distributed_c10d.GradBucket) -> torch.futures.Future[Tensor]:
        """The mean of a bucket of gradients, as without a hook; noted."""
        self.calls[GRADIENTS, "all_reduce", bucket.buffer().nbytes] += 1
        work = torch.distributed.distributed_c10d._get_default_group().allreduce([bucket.buffer().div_(2)])
        future: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
        return future

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note every call in this block."""
        noting: dict[str, Any] = {name: self.noting(name, getattr(dist, name)) for name in CALLS}
        with mock.patch.multiple(dist, **noting):
            across = CrossReplicaBatchNorm.across_processes

            def noted(norm: CrossReplicaBatchNorm, rows: Tensor) -> Tensor:
                self.norms[norm.num_features, torch.is_grad_enabled()] += 1
                return across(norm, rows)

            with mock.patch.object(CrossReplicaBatchNorm, "across_processes", noted):
                yield

    def noting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, noted with its caller."""

        def call(*args: Any, **options: Any) -> Any:
            caller = sys._getframe(1).f_code.co_qualname
            self.calls[caller, name, args[CALLS[name]].nbytes] += 1
            return function(*args, **options)

        return call


def count(loop: Loop, batch: int) -> Tally:
    """The collectives of a step, once buckets and optimiser have settled."""
    tally, step, stop = Tally(), Step(loop, batch), StopSignals()
    if hasattr(loop.wrapped, "register_comm_hook"):
        loop.wrapped.register_comm_hook(None, lambda state, bucket: tally.reduced(bucket))
    for _ in range(WARM):
        step()
    tally.calls.clear()
    with tally.listening():
        step()
        stop.agreed()
    stop.restore()
    return tally


def one_rank(rank: int, folder: str, case: Case, names: Sequence[str]) -> None:
    """Join the other process, take the steps of every method, and leave the first process's counts."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    os.environ["ACCELERATE_USE_CPU"] = "true"
    on_threads(1)
    meeting = (Path(folder) / "meeting").as_uri()
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=DEADLINE)
    compute, counted = Compute("fp32", "contiguous", {}), {}
    images = Noise(2 * case.batch, case.size)
    try:
        with given_for(images) as given:
            for name in names:
                anew()
                config = case.config(CONFIGS[name], **given)
                accelerator = accelerator_of("fp32", (), "unused")
                recipe = recipe_of(case, config, compute)
                tally = count(loop_of(recipe, case, images, compute, accelerator), case.batch)
                calls = [[*key, times] for key, times in sorted(tally.calls.items())]
                counted[name] = {"calls": calls, "norms": [[*key, times] for key, times in tally.norms.items()]}
        if rank == 0:
            write(counted, Path(folder) / "counted.json")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def received(call: str, payload: float, world: int) -> float:
    """Bytes that reach a process."""
    shares = {"all_gather": world - 1, "all_reduce": 2 * (world - 1) / world, "broadcast": 1}
    return shares[call] * payload


def on_gpus(row: dict[str, Any]) -> list[tuple[str, str, int, int]]:
    """The calls with torch.nn.SyncBatchNorm in place of the portable one: caller, call, payload, times."""
    calls = [tuple(call) for call in row["calls"] if call[0] not in PORTABLE]
    for width, learns, times in row["norms"]:
        calls.append(("SyncBatchNorm.forward", "all_gather", 4 * (2 * width + 1), times))
        if learns:
            calls.append(("SyncBatchNorm.backward", "all_reduce", 4 * 2 * width, times))
    return calls


def extrapolated(calls: Sequence[Sequence[Any]], world: int) -> dict[str, Any]:
    """Calls and bytes of a step with so many processes; those of gradients, which overlap with backward, apart."""
    found: dict[str, Any] = {"calls": 0, "megabytes": 0.0, "of_gradients": {"calls": 0, "megabytes": 0.0}}
    for caller, call, payload, times in calls:
        grown = payload * world / 2 if caller in GROWING else payload
        part = found["of_gradients"] if caller == GRADIENTS else found
        part["calls"] += times
        part["megabytes"] += times * received(call, grown, world) / 1e6
    for part in (found, found["of_gradients"]):
        part["megabytes"] = round(part["megabytes"], 3)
    return found


def rows_of(counted: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each method: what was counted, and what it makes with more processes."""
    rows = []
    for name, row in counted.items():
        by_caller = [
            {"caller": caller, "call": call, "payload_bytes": payload, "times": times}
            for caller, call, payload, times in row["calls"]
        ]
        rows.append(
            {
                "method": name,
                "counted": by_caller,
                "gloo": {str(world): extrapolated(row["calls"], world) for world in WORLDS},
                "gpus": {str(world): extrapolated(on_gpus(row), world) for world in WORLDS},
            }
        )
    return rows


def main() -> None:
    """Count, print and write."""
    parser = command(__file__, __doc__, rounds=1, of="of counting; all have to agree")
    parser.add_argument("--case", choices=list(CASES), default="resnet18@64")
    parser.add_argument("--batch", type=int, default=16, help="images of a process (16); bytes of images grow with it")
    parser.add_argument("--methods", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--quick", action="store_true", help="a tiny network, for a test")
    options = parser.parse_args()
    case = QUICK if options.quick else CASES[options.case]
    case = dataclasses.replace(case, batch=options.batch)
    found = [counts(case, options.methods) for _ in range(options.rounds)]
    if any(other != found[0] for other in found):
        raise SystemExit("collectives.py: two rounds counted different calls")
    results = circumstances(PACKAGES) | {"case": case.name, "size": case.size, "batch_a_process": case.batch}
    results |= {"rounds": options.rounds, "processes": 2, "measured": rows_of(found[0])}
    print({name: value for name, value in results.items() if name != "measured"})
    print("Calls a step and MB received by a process (gradients apart), counted on 2, worked out for 8 and 64 GPUs:")
    for row in results["measured"]:
        cells = [(world, row["gloo" if world == 2 else "gpus"][str(world)]) for world in WORLDS]
        told = "   ".join(
            f"{world}: {cell['calls']} calls {cell['megabytes']} MB (+ {cell['of_gradients']['calls']}, "
            f"{cell['of_gradients']['megabytes']} MB)"
            for world, cell in cells
        )
        print(f"  {row['method']:13} {told}")
    write(results, options.out)


def counts(case: Case, names: Sequence[str]) -> dict[str, Any]:
    """The counts of two processes, by method."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(one_rank, (folder, case, names), nprocs=2, join=True)
        counted: dict[str, Any] = json.loads((Path(folder) / "counted.json").read_bytes())
        return counted


if __name__ == "__main__":
    main()
