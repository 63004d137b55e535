"""Run a function on two processes that talk over gloo."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from limits import HANG
from torch import distributed, multiprocessing
from warm_processes import METHOD, take_environment, warm_context

DEADLINE = timedelta(seconds=HANG)
"""The time that a rank waits for the other before it fails the test."""
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
"""The words that start a program on two processes, which meet at a free port."""


class RankError(RuntimeError):
    """A rank failed; the message is its traceback."""


def run_two_processes(function: Callable[..., Any], *args: Any) -> list[Any]:
    """The results of `function(rank, *args)` on ranks 0 and 1; what went wrong first on either is raised as RankError.

    The function lives at the top of a test module, so that a fresh process can import it; what it returns is read back
    as tensors and plain values.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            warm_context()
            given = (folder, function, args, dict(os.environ))
            multiprocessing.start_processes(one_rank, given, nprocs=2, start_method=METHOD)
        except (multiprocessing.ProcessRaisedException, multiprocessing.ProcessExitedException) as error:
            # A rank that falls takes the other with it, and either may be heard first: the earliest is the cause.
            causes = sorted(folder.glob("*.error"))
            raise RankError(causes[0].read_text() if causes else str(error)) from None
        return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def share_a_core() -> None:
    """Keep the ranks that a worker of `-n` waits for on one core: there each goes on as soon as the other waits for it.

    Spread over cores that other workers use, they would wait for their turn at every exchange.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker) % len(cores)]})


def one_rank(
    rank: int, folder: Path, function: Callable[..., Any], args: tuple[Any, ...], environment: dict[str, str]
) -> None:
    """Join the group, run the function, and leave its answer or its error in the folder."""
    take_environment(environment)
    share_a_core()
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    torch.set_num_threads(1)
    meeting = (folder / "meeting").as_uri()
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=DEADLINE)
    try:
        torch.save(function(rank, *args), folder / f"{rank}.pt")
        distributed.barrier()
    except Exception:
        (folder / f"{time.time_ns()}-{rank}.error").write_text(f"on rank {rank}:\n{traceback.format_exc()}")
        raise
    finally:
        distributed.destroy_process_group()
