"""Reading processes share the keys and labels of a data set, however they are started."""

from __future__ import annotations

import multiprocessing
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_backbones.data.batches import Batch, BatchDataset, Request
from ssl_backbones.data.keys import PathKeys
from ssl_backbones.train import shared_arrays
from ssl_backbones.train.reading import read_each

COUNT = 200_000


class Listed(BatchDataset):
    """A data set of many names, whose items tell where the reading process has them."""

    def __init__(self) -> None:
        self.keys = PathKeys(f"folder/{number}.jpg" for number in range(COUNT))
        self.labels = np.arange(COUNT)
        self.small = np.arange(3)

    def __getitem__(self, request: Request) -> Batch:
        rows = [int(row) for row in request.indices]
        assert [self.keys[row] for row in rows] == [f"folder/{row}.jpg" for row in rows]
        assert self.labels[rows].tolist() == rows
        assert self.small.tolist() == [0, 1, 2]
        self.labels[rows[0]] += 0  # may be written to, in this process alone
        maps = Path("/proc/self/maps").read_text().splitlines()
        inodes = sorted(int(line.split()[4]) for line in maps if "memfd:ssl_backbones" in line)
        return Batch(torch.tensor(inodes), {})

    def content(self, request: Request, unreadable: dict[str, str]) -> Any:
        raise NotImplementedError


@pytest.mark.skipif(not hasattr(shared_arrays.os, "memfd_create"), reason="the system knows no such memory")
@pytest.mark.parametrize("method", ["fork", "forkserver", pytest.param("spawn", marks=pytest.mark.slow)])
def test_reading_processes_share_large_arrays(method: str) -> None:
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    try:
        found = list(read_each(Listed(), [Request(0, np.array([at, COUNT - 1])) for at in range(4)], 2))
    finally:
        multiprocessing.set_start_method(before, force=True)
    inodes = {tuple(batch.content.tolist()) for batch in found}
    assert len(inodes) == 1  # the same memory in both
    assert len(*inodes) == (0 if method == "fork" else 3)


def test_arrays_are_pickled_as_ever_elsewhere() -> None:
    pickled = multiprocessing.reduction.ForkingPickler.dumps(np.arange(COUNT))
    assert re.search(rb"mapped", bytes(pickled)) is None
    assert np.array_equal(multiprocessing.reduction.ForkingPickler.loads(pickled), np.arange(COUNT))
