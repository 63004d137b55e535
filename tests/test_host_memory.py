"""The processes of a machine hold large arrays once: the features of an evaluation, keys, labels and digests."""

from __future__ import annotations

import errno
import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from two_processes import run_two_processes

from ssl_backbones import host_memory, shares
from ssl_backbones.data.batches import Batch, BatchDataset
from ssl_backbones.data.keys import PathKeys
from ssl_backbones.data.parts import Request
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
    """Large arrays, one of them under two names, a small one, and what a pickle leaves out."""

    def __init__(self) -> None:
        self.keys = PathKeys(f"folder/{number}.jpg" for number in range(100_000))
        self.labels = np.arange(200_000)
        self.same = self.labels
        self.small = np.arange(3)
        self.texts = np.full(300_000, "a")
        self.days = np.arange(200_000).astype("M8[D]")
        self.fields = np.ones(200_000, [("one", "<i4"), ("two", "<i4")])
        self.open = True

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "open": False}


class Counted(BatchDataset):
    """Images of which a network sees the row."""

    def __init__(self) -> None:
        """Start with no values."""

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


def no_memory(*_: object, **__: object) -> int:
    raise OSError(errno.EMFILE, "Too many open files")


def holding(rank: int) -> dict[str, dict[str, Any]]:
    """Arrays as this process has them, in each case."""
    found = {"together": held(rank)}
    cases: dict[str, tuple[int, Any, str, Any]] = {"apart": (1, host_memory, "taken_up", lambda offer: None)}
    cases |= {name: (0, os, name, no_memory) for name in ("memfd_create", "posix_fallocate")}
    cases["unmapped"] = (0, host_memory, "SharedMap", no_memory)
    for case, (where, of, name, instead) in cases.items():
        with pytest.MonkeyPatch.context() as patch:
            if rank == where:
                patch.setattr(of, name, instead)
            found[case] = held(rank)
    os.environ["LOCAL_RANK"] = str(1 - rank)
    return found | {"turned": held(rank)}


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
    right += [known.open == (rank == 0), not known.labels.flags.writeable, known.fields["two"].sum() == 200_000]
    right += [bool((known.texts == "a").all()), bool((known.days == np.arange(200_000).astype("M8[D]")).all())]
    rows, _ = embed(Powers(), Counted(), np.arange(ROWS + 1), torch.device("cpu"), batch_size=100)
    right.append(torch.equal(rows, torch.arange(ROWS + 1)[:, None] + torch.arange(256.0)))
    small = HostArray((10, 2))
    small.write(0, np.ones((10, 2)))
    right.append(bool((small.finished() == 1).all()) and inode_of(small.array) == 0)
    with pytest.raises((Refusal, OtherRankError), match="no such images"):
        made_once(refused)
    shared = (known.labels, known.keys.block, known.texts, known.days)
    gc.collect()  # what earlier work of this process left open
    inodes = [first, inode_of(rows.numpy()), *map(inode_of, shared)]
    return {"right": [*map(bool, right)], "inodes": inodes, "open": len(os.listdir("/proc/self/fd"))}


@on_linux
def test_two_processes_hold_an_array_once_and_have_copies_where_they_cannot() -> None:
    one, other = run_two_processes(holding)
    assert all(all(found["right"]) for found in (*one.values(), *other.values()))
    for case in ("together", "turned"):
        assert one[case]["inodes"] == other[case]["inodes"]
        assert all(one[case]["inodes"])
        assert len(set(one[case]["inodes"])) == 6
    assert all(one["apart"]["inodes"])
    for case, found in other.items():
        assert any(found["inodes"]) == (case in ("together", "turned"))
    without = [one[case] for case in ("memfd_create", "posix_fallocate", "unmapped")]
    assert not any(any(found["inodes"]) for found in without)
    assert len({found["open"] for found in without}) == 1, "a descriptor was left open"


def test_a_process_alone_has_its_own() -> None:
    array = HostArray((ROWS, WIDTH))
    array.write(0, numbers())
    assert np.array_equal(array.finished(), numbers())
    assert descriptor_of(array.array) is None
    assert isinstance(made_once(Known), Known)


@on_linux
def test_what_is_shared_already_is_not_copied_for_readers_unless_it_may_have_been_written_to() -> None:
    descriptor = host_memory.new_memory(8 * 200_000, "any")
    array = host_memory.array_in(host_memory.mapped(descriptor), (200_000,), "<i8")
    array[0] = 7
    shared = Shared()
    copied = shared.descriptor(array)
    assert copied not in (None, descriptor)
    assert os.pread(copied or 0, 8, 0) == (7).to_bytes(8, "little")
    array.flags.writeable = False
    assert shared.descriptor(array) == descriptor
    assert shared.descriptor(array[1:]) != descriptor
    shared.close()
    os.fstat(descriptor)  # still the array's
    del array, shared
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


@on_linux
def test_memory_of_another_name_is_not_taken() -> None:
    name = "name"
    descriptor = host_memory.new_memory(8, name)
    found = host_memory.taken_up((os.getpid(), descriptor, name))
    assert found is not None
    assert host_memory.taken_up((os.getpid(), descriptor, "another")) is None
    assert host_memory.taken_up((2**30, descriptor, name)) is None
    assert host_memory.taken_up(None) is None
    os.close(descriptor)


def test_rows_are_taken_without_a_copy_where_all_are() -> None:
    rows = torch.arange(12.0).reshape(4, 3)
    assert shares.rows_at(rows, torch.arange(4)) is rows
    assert torch.equal(shares.rows_at(rows, torch.tensor([2, 0])), rows[[2, 0]])
    assert torch.equal(shares.rows_at(rows, torch.tensor([1, 0, 2, 3])), rows[[1, 0, 2, 3]])
