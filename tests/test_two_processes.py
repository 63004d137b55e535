"""The harness that distributed tests stand on."""

from __future__ import annotations

import pytest
import torch
from torch import distributed
from two_processes import RankError, run_two_processes


def add_up(rank: int, start: float) -> dict[str, object]:
    total = torch.tensor([start + rank])
    distributed.all_reduce(total)
    return {"rank": rank, "world": distributed.get_world_size(), "total": total}


def stumble(rank: int) -> None:
    if rank == 1:
        raise ValueError("it fell over")


def test_both_ranks_run_and_hear_each_other() -> None:
    first, second = run_two_processes(add_up, 10.0)
    assert (first["rank"], second["rank"], first["world"]) == (0, 1, 2)
    assert first["total"].item() == second["total"].item() == 21


def test_the_error_that_came_first_is_raised_here() -> None:
    with pytest.raises(RankError, match=r"(?s)on rank 1:.*ValueError: it fell over"):
        run_two_processes(stumble)
