"""The ends of processes that work together: the loss of one, as the others tell it, and who tells a reason."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch.distributed as dist

from ssl_backbones import distributed
from ssl_backbones.distributed import OtherRankError, launched, rank, world_size

LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed out|recvvalue|process group", re.I)
"""Words of torch, in many forms, when another process is gone."""
TELLING = timedelta(seconds=5)
"""The time that ending processes wait to hear if the first one has said why."""


def is_lost_rank(error: Exception) -> bool:
    """True for the error by which torch tells, where several processes work together, that another one is gone."""
    torchs_own = type(error) is RuntimeError or isinstance(error, dist.DistError)
    return max(world_size(), launched()) > 1 and torchs_own and bool(LOST.search(str(error)))


@contextmanager
def one_for_all(progress: Callable[[], str]) -> Iterator[None]:
    """Context manager: raise OtherRankError for the loss of another process, with the progress of the work."""
    try:
        yield
    except RuntimeError as error:
        if not is_lost_rank(error):
            raise
        count = max(world_size(), launched())
        place = rank() if world_size() > 1 else os.environ.get("RANK", "0")
        minutes = distributed.PATIENCE.seconds // 60
        raise OtherRankError(
            f"another of the {count} processes is gone or has not answered for {minutes} minutes "
            f"(look for its own message; seen by process {place}), {progress()}"
        ) from error


def first_to_tell(reason: str) -> bool:
    """Decide which of the processes that end for a reason tells it: the first, or another that has a reason of its own.

    True in the process that does.
    """
    if world_size() == 1:
        return True
    with suppress(RuntimeError):  # the store ends with the process that keeps it
        store = dist.distributed_c10d._get_default_store()
        if rank() == 0:
            store.set("refused by 0", reason)
            store.wait([f"heard by {other}" for other in range(1, world_size())], TELLING)
            return True
        store.wait(["refused by 0"], TELLING)
        said: str = store.get("refused by 0").decode()
        store.set(f"heard by {rank()}", "")
        return reason != said
    return True
