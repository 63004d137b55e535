"""Reading processes share the keys and labels of a data set, however they are started."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ssl_backbones.data.batches import Batch, BatchDataset
from ssl_backbones.data.keys import PathKeys
from ssl_backbones.data.parts import Request
from ssl_backbones.host_memory import LEAST
from ssl_backbones.train import shared_arrays
from ssl_backbones.train.loader import read_each

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
        maps = Path("/proc/self/maps").read_text().splitlines()
        inodes = sorted(int(line.split()[4]) for line in maps if "memfd:ssl_backbones" in line)
        return Batch(torch.tensor([int(self.labels.flags.writeable), *inodes]), {})

    def content(self, request: Request, unreadable: dict[str, str]) -> Any:
        raise NotImplementedError


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system knows no such memory")
@pytest.mark.parametrize("method", ["fork", "forkserver", pytest.param("spawn", marks=pytest.mark.slow)])
def test_reading_processes_share_large_arrays(method: str) -> None:
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    try:
        found = list(read_each(Listed(), [Request(0, np.array([at, COUNT - 1])) for at in range(4)], 2))
    finally:
        multiprocessing.set_start_method(before, force=True)
    (seen,) = {tuple(batch.content.tolist()) for batch in found}  # the same memory in both
    assert seen[0] == (method == "fork"), "what is written to shared memory is lost to the others"
    assert len(seen[1:]) == (0 if method == "fork" else 3)


@pytest.mark.parametrize("kind", ["<i8", "<U1", "<M8[s]", "i4,i4"])
@pytest.mark.parametrize("memory", [True, False])
def test_arrays_of_any_type_reach_readers_whatever_the_system_gives(
    memory: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(name: str) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", name)

    if not memory:
        monkeypatch.setattr(os, "memfd_create", refused, raising=False)
    monkeypatch.setattr(shared_arrays, "get_spawning_popen", object)
    monkeypatch.setattr(shared_arrays, "DupFd", lambda descriptor: SimpleNamespace(detach=lambda: os.dup(descriptor)))
    array = np.arange(LEAST // 4).astype(kind)
    with shared_arrays.arrays_shared():
        make, parts, *state = shared_arrays.reduced(array)
        there = make(*parts)
    for each in state:
        there.__setstate__(each)
    assert (make is shared_arrays.received) == (memory and hasattr(os, "memfd_create") and not array.dtype.names)
    assert there.dtype == array.dtype
    assert np.array_equal(there, array)


def test_arrays_are_pickled_as_ever_elsewhere() -> None:
    pickled = multiprocessing.reduction.ForkingPickler.dumps(np.arange(COUNT))
    assert re.search(rb"mapped", bytes(pickled)) is None
    assert np.array_equal(multiprocessing.reduction.ForkingPickler.loads(pickled), np.arange(COUNT))
