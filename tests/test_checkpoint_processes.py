"""A checkpoint of several processes: what they share, what each keeps, and that they raise or go back together."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from limits import HANG
from small_checkpoints import equal, flip, put, state, steps
from two_processes import run_two_processes

from ssl_backbones import distributed, shared_disk
from ssl_backbones.distributed import OtherRankError
from ssl_backbones.runs import checkpoint, saving
from ssl_backbones.runs.checkpoint import load_latest
from ssl_backbones.runs.manifest import CheckpointError
from ssl_backbones.runs.writer import Writer


def save_in(rank: int, folder: Path, step: int, _: Writer | None = None) -> Path:
    return put(folder, step, own={"mean": torch.tensor(rank + 10 * step)})


def save_beside(rank: int, folder: Path, step: int, writer: Writer) -> None:
    writer.save(step, state(step), {}, own={"mean": torch.tensor(rank + 10 * step)})
    writer.settle()


def share_and_keep(rank: int, place: str) -> bool:
    folder = Path(place)
    assert save_in(rank, folder, 1) == folder / "step-00000001"
    found = load_latest(folder)
    assert found is not None
    assert equal(found.tensors, state(1))
    assert found.own["mean"].item() == 10 + rank
    assert found.changed(world_size=2) == []
    assert load_latest(folder / "none") is None
    return True


def test_ranks_share_a_checkpoint_and_keep_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_two_processes(share_and_keep, str(tmp_path)) == [True, True]
    monkeypatch.setattr(checkpoint, "rank", lambda: 2)
    third = load_latest(tmp_path)
    assert third is not None
    assert third.own["mean"].item() == 10
    assert third.changed(world_size=3) == ["world_size 2 -> 3"]


def full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


FAULTS = {"to open the folder": ("begin_writing", 0), "the first": ("create_file", 0), "the second": ("write_file", 1)}


def cannot_write(rank: int, place: str, background: bool) -> list[str]:
    folder, said = Path(place), []
    writer = Writer(folder, 2)
    writer.save(1, state(1), {}, own={"mean": torch.tensor(rank)})
    for step, (name, bad) in enumerate(FAULTS.values(), start=2):
        with pytest.MonkeyPatch.context() as patch:
            writer.settle()
            if rank == bad:
                patch.setattr(saving, name, full)
            with pytest.raises((CheckpointError, OtherRankError)) as caught:
                (save_beside if background else save_in)(rank, folder, step, writer)
        said.append(str(caught.value))
        assert writer.saved == 1
        assert distributed.gather_objects(steps(folder)) == [[1], [1]]
    save_in(rank, folder, 9)
    found = load_latest(folder)
    assert found is not None
    assert found.own["mean"].item() == 90 + rank
    return said


@pytest.mark.parametrize("background", [True, False])
def test_when_one_rank_cannot_write_both_raise(tmp_path: Path, background: bool) -> None:
    one, other = run_two_processes(cannot_write, str(tmp_path), background)
    assert one == other
    for step, sentence in enumerate(one, start=2):
        assert f"the checkpoint of step {step} could not be written" in sentence
        assert "No space left on device" in sentence
    assert steps(tmp_path) == [1, 9]
    assert not list(tmp_path.glob(".tmp-*"))


def choose(rank: int, place: str) -> list[Any]:
    folder, found = Path(place), []
    for step in (1, 2):
        save_in(rank, folder, step)
    for harmed in ("step-00000002/rank-00001.safetensors", "step-00000001/method.safetensors"):
        distributed.gather_objects(rank)  # the other has read what is harmed now
        if rank == 0:
            flip(folder / harmed)
        try:
            loaded = load_latest(folder)
            assert loaded is not None
            found.append([loaded.step, len(loaded.skipped)])
        except (CheckpointError, OtherRankError) as error:
            said = str(error)
            found.append([type(error).__name__, "none of the 2 checkpoints" in said, "or delete the folder" in said])
    return found


def test_rank_0_chooses_for_both(tmp_path: Path) -> None:
    assert run_two_processes(choose, str(tmp_path)) == [
        [[1, 1], [kind.__name__, True, True]] for kind in (CheckpointError, OtherRankError)
    ]


def test_a_shared_file_system_may_take_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_disk, "VISIBLE_WITHIN", HANG)
    put(tmp_path / "there", 1)
    rename = threading.Timer(0.3, lambda: (tmp_path / "there").rename(tmp_path / "here"))
    rename.start()
    monkeypatch.setattr(checkpoint, "first_decides", lambda _: (tmp_path / "here" / "step-00000001", []))
    loaded = load_latest(tmp_path / "here")
    rename.join()
    assert loaded is not None
    assert equal(loaded.tensors, state(1))


def write_slowly(rank: int, place: str) -> list[Any]:
    """Two checkpoints by a slow disk, while collectives go on: what each rank believes to be there, at each stage."""
    folder, seen = Path(place), []
    writer, commit, hold = Writer(folder, 2), saving.commit, threading.Event()
    saving.commit = lambda begun: (hold.wait(), commit(begun))[1]
    distributed.REPORTS = timedelta(seconds=0.05)
    writer.save(1, state(1), {}, own={"mean": torch.tensor(rank)})
    total = torch.ones(1)
    for _ in range(20):  # as the steps of a training do
        torch.distributed.all_reduce(total)
    seen.append([writer.saved, steps(folder)])
    threading.Timer(0.5, hold.set).start()
    writer.save(2, state(2), {}, own={"mean": torch.tensor(rank)})
    seen.append([writer.saved, steps(folder)[:1]])
    writer.settle()
    saving.commit = commit
    return [*seen, [writer.saved, steps(folder)]]


def test_no_rank_takes_a_checkpoint_for_there_before_it_is(tmp_path: Path) -> None:
    expected = [[None, []], [1, [1]], [2, [1, 2]]]
    assert run_two_processes(write_slowly, str(tmp_path)) == [expected, expected]
