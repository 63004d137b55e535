"""The processes of a machine hold large arrays once: the features of an evaluation, keys, labels and digests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from two_processes import run_two_processes

from ssl_backbones import host_memory, shares
from ssl_backbones.data.batches import Batch, BatchDataset, Request
from ssl_backbones.data.keys import PathKeys
from ssl_backbones.distributed import OtherRankError, gather_objects
from ssl_backbones.host_memory import HostArray, descriptor_of, made_once
from ssl_backbones.refusal import Refusal
from ssl_backbones.train.embed import embed
from ssl_backbones.train.shared_arrays import Shared

ROWS, WIDTH = 3000, 256
on_linux = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system knows no such memory")


def numbers() -> np.ndarray:
    return np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)


class Known:
    """Large arrays, one of them under two names, and a small one."""

    def __init__(self) -> None:
        self.keys = PathKeys(f"folder/{number}.jpg" for number in range(100_000))
        self.labels = np.arange(200_000)
        self.same = self.labels
        self.small = np.arange(3)


class Counted(BatchDataset):
    """Images of which a network sees the row."""

    def __init__(self) -> None:
        """Of nothing."""

    def on_device(self, content: Any) -> Any:
        return content

    def __getitem__(self, request: Request) -> Batch:
        return Batch(torch.from_numpy(request.indices).float(), {})

    def content(self, request: Request, unreadable: dict[str, str]) -> Any:
        raise NotImplementedError


class Powers(nn.Module):
    """Features (B, 256) of rows (B,)."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows[:, None] + torch.arange(256)


def refused() -> Known:
    raise Refusal("no such images")


def inode_of(array: np.ndarray) -> int:
    """The inode of the shared memory that an array lies in; 0 for memory of its own."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        borders, _, _, _, inode, *name = line.split()
        start, end = (int(border, 16) for border in borders.split("-"))
        if start <= array.ctypes.data < end:
            return int(inode) if name and name[0].startswith("/memfd:") else 0
    raise AssertionError


def holding(rank: int) -> list[dict[str, Any]]:
    """Arrays as this process has them; then again, with the second in a container of its own."""
    together = held(rank)
    if rank == 1:
        host_memory.taken_up = lambda offer: None
    return [together, held(rank)]


def held(rank: int) -> dict[str, Any]:
    """Arrays as this process has them."""
    filled = HostArray((ROWS, WIDTH))
    for start in range(0, ROWS, 1000):
        filled.write(start, numbers()[start : start + 1000])
    found = filled.finished()
    first = inode_of(found)
    right = [np.array_equal(found, numbers())]
    gather_objects(None)
    found[:] = rank  # its own from here on
    gather_objects(None)
    right.append(bool((found == rank).all()))
    known = made_once(Known)
    right += [known.keys[99_999] == "folder/99999.jpg", known.labels.sum() == 199_999 * 100_000]
    right += [known.same is known.labels, known.small.tolist() == [0, 1, 2]]
    rows, _ = embed(Powers(), Counted(), np.arange(ROWS + 1), torch.device("cpu"), batch_size=100)
    right.append(torch.equal(rows, torch.arange(ROWS + 1)[:, None] + torch.arange(256.0)))
    small = HostArray((10, 2))
    small.write(0, np.ones((10, 2)))
    right.append(bool((small.finished() == 1).all()) and inode_of(small.array) == 0)
    with pytest.raises((Refusal, OtherRankError), match="no such images"):
        made_once(refused)
    inodes = [first, *map(inode_of, (known.labels, known.keys.block)), inode_of(rows.numpy())]
    return {"right": [*map(bool, right)], "inodes": inodes}


@on_linux
def test_two_processes_hold_an_array_once_and_one_out_of_reach_has_a_copy() -> None:
    (first, alone), (second, apart) = run_two_processes(holding)
    for found in (first, second, alone, apart):
        assert all(found["right"])
    assert first["inodes"] == second["inodes"]
    assert all(first["inodes"])
    assert len(set(first["inodes"])) == 4
    assert all(alone["inodes"])
    assert not any(apart["inodes"])


def test_a_process_alone_has_its_own() -> None:
    array = HostArray((ROWS, WIDTH))
    array.write(0, numbers())
    assert np.array_equal(array.finished(), numbers())
    assert descriptor_of(array.array) is None
    assert isinstance(made_once(Known), Known)


@on_linux
def test_what_is_shared_already_is_not_copied_for_readers() -> None:
    descriptor, _ = host_memory.new_memory(8 * 200_000)
    array = host_memory.mapped(descriptor, "<i8", (200_000,))
    shared = Shared()
    assert shared.descriptor(array) == descriptor
    assert shared.descriptor(array[1:]) != descriptor
    shared.close()
    os.fstat(descriptor)  # still the array's
    del array, shared
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


@on_linux
def test_memory_of_another_name_is_not_taken() -> None:
    descriptor, name = host_memory.new_memory(8)
    found = host_memory.taken_up((os.getpid(), descriptor, name))
    assert found is not None
    assert host_memory.taken_up((os.getpid(), descriptor, "another")) is None
    assert host_memory.taken_up((2**30, descriptor, name)) is None
    assert host_memory.taken_up(None) is None
    for each in (descriptor, found):
        os.close(each)


def test_rows_are_taken_without_a_copy_where_all_are() -> None:
    rows = torch.arange(12.0).reshape(4, 3)
    assert shares.rows_at(rows, torch.arange(4)) is rows
    assert torch.equal(shares.rows_at(rows, torch.tensor([2, 0])), rows[[2, 0]])
    assert torch.equal(shares.rows_at(rows, torch.tensor([1, 0, 2, 3])), rows[[1, 0, 2, 3]])
