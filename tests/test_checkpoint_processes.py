"""A checkpoint of several processes: what they share, what each keeps, and that they raise or go back together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from limits import HANG
from small_checkpoints import equal, flip, put, state, steps
from warm_processes import run_program

from ssl_backbones.runs import manifest, saving
from ssl_backbones.runs.checkpoint import load_latest
from ssl_backbones.runs.manifest import CheckpointError


class Pair:
    """Two ranks as threads of this process, with the barrier and the broadcast of a process group."""

    def __init__(self) -> None:
        self.meet = threading.Barrier(2, timeout=HANG)
        self.box: Any = None

    def broadcast(self, value: Any) -> Any:
        if value:
            self.box = value
        self.meet.wait()
        return self.box

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        """The values that each rank's work returned, or its errors."""

        def caught(rank: int) -> Any:
            try:
                return work(rank)
            except (CheckpointError, OSError) as error:
                return error

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(caught, range(2)))

    def save(self, folder: Path, step: int, world_size: int = 2) -> list[Any]:
        def work(rank: int) -> Path:
            mine = {"mean": torch.tensor(rank + 10 * step)}
            return put(folder, step, own=mine, rank=rank, world_size=world_size, barrier=self.meet.wait)

        return self.run(work)

    def load(self, folder: Path) -> list[Any]:
        return self.run(lambda rank: load_latest(folder, rank=rank, broadcast=self.broadcast))


def test_ranks_share_a_checkpoint_and_keep_their_own(tmp_path: Path) -> None:
    pair = Pair()
    assert pair.save(tmp_path, 1) == [tmp_path / "step-00000001"] * 2
    first, second = pair.load(tmp_path)
    assert equal(first.tensors, state(1))
    assert equal(second.tensors, state(1))
    assert (first.own["mean"].item(), second.own["mean"].item()) == (10, 11)
    third = load_latest(tmp_path, rank=2, broadcast=lambda _: {"name": "step-00000001", "skipped": []})
    assert third is not None
    assert third.own["mean"].item() == 10
    assert third.changed(world_size=3) == ["world_size 2 -> 3"]


@pytest.mark.parametrize("bad", [0, 1])
def test_when_one_rank_cannot_write_both_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: int) -> None:
    pair, original = Pair(), saving.write_file
    pair.save(tmp_path, 1)

    def failing(path: Path, content: bytes) -> None:
        if path.name == f"rank-{bad:05d}.safetensors":
            raise OSError(28, "No space left on device")
        original(path, content)

    monkeypatch.setattr(manifest, "VISIBLE_WITHIN", 0.3)
    monkeypatch.setattr(saving, "write_file", failing)
    said = pair.save(tmp_path, 2)
    assert all(isinstance(error, CheckpointError) for error in said)
    assert ["No space left" in str(error) for error in said] == [bad == 0, bad == 1]
    assert "did not appear within 0.3 s" in str(said[1 - bad])
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000001"]
    monkeypatch.setattr(saving, "write_file", original)
    pair.save(tmp_path, 2)
    assert [loaded.own["mean"].item() for loaded in pair.load(tmp_path)] == [20, 21]


def test_rank_0_chooses_for_both(tmp_path: Path) -> None:
    pair = Pair()
    for step in (1, 2):
        pair.save(tmp_path, step)
    flip(tmp_path / "step-00000002" / "rank-00001.safetensors")
    assert [(loaded.step, len(loaded.skipped)) for loaded in pair.load(tmp_path)] == [(1, 1), (1, 1)]
    flip(tmp_path / "step-00000001" / "method.safetensors")
    assert all("none of the 2 checkpoints" in str(error) for error in pair.load(tmp_path))
    assert pair.load(tmp_path / "none") == [None, None]


def test_a_shared_file_system_may_take_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "VISIBLE_WITHIN", HANG)
    put(tmp_path / "there", 1)
    rename = threading.Timer(0.3, lambda: (tmp_path / "there").rename(tmp_path / "here"))
    rename.start()
    loaded = load_latest(tmp_path / "here", rank=1, broadcast=lambda _: {"name": "step-00000001", "skipped": []})
    rename.join()
    assert loaded is not None
    assert equal(loaded.tensors, state(1))


GLOO = """
import os, sys
from datetime import timedelta
from pathlib import Path
import torch
import torch.distributed as dist
from ssl_backbones.runs.checkpoint import load_latest
from ssl_backbones.runs.saving import save
folder, meet = Path(sys.argv[1]), sys.argv[2]
child = os.fork()
rank = 1 if child == 0 else 0
limit = timedelta(minutes=30)
dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2, timeout=limit)

def broadcast(value):
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]

shared, own = {"part": {"x": torch.ones(2)}}, {"mean": torch.tensor(rank)}
for step in (1, 2, 3):
    save(folder, step, shared, {}, own=own, rank=rank, world_size=2, barrier=dist.barrier)
loaded = load_latest(folder, rank=rank, broadcast=broadcast)
assert loaded.step == 3 and loaded.own["mean"].item() == rank
dist.barrier()
dist.destroy_process_group()
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_two_processes_on_gloo(tmp_path: Path) -> None:
    done = run_program(GLOO, tmp_path / "run", tmp_path / "meet")
    assert done.returncode == 0, done.stderr
    assert steps(tmp_path / "run") == [2, 3]
