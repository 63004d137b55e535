"""A checkpoint is written while the run goes on: of the state as it was, in order, whole or not at all."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import elsewhere, outcome, run, tiny
from small_checkpoints import equal, state, steps
from whole_runs import data

from ssl_backbones.methods import BYOLConfig
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import Checkpoints
from ssl_backbones.runs import saving
from ssl_backbones.runs.checkpoint import load_latest
from ssl_backbones.runs.manifest import CheckpointError
from ssl_backbones.runs.writer import HostCopy, Writer
from ssl_backbones.train.due import Due
from ssl_backbones.train.guards import NotFiniteError
from ssl_backbones.train.loop import Loop

__all__ = ["data"]


class Disk:
    """A disk that takes nothing while it is held; counts how many write to it at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = threading.Event()
        self.free.set()
        self.at_once, self.most, self.order = 0, 0, list[int]()
        self.full_at: int | None = None
        commit = saving.commit

        def held(begun: saving.Begun) -> None:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            assert self.free.wait(60)
            self.at_once -= 1
            if begun.step == self.full_at:
                raise OSError(28, "No space left on device", str(begun.writing))
            self.order.append(begun.step)
            commit(begun)

        monkeypatch.setattr(saving, "commit", held)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(monkeypatch)
    yield disk
    disk.free.set()


def test_the_state_is_that_of_its_step_whatever_follows(tmp_path: Path, disk: Disk) -> None:
    writer, parts = Writer(tmp_path, 2), state(1)
    scalars: dict[str, Any] = {"of": {"step": 1}}
    disk.free.clear()
    writer.save(1, parts, scalars, own={"mean": parts["method"]["weight"]})
    for named in parts.values():
        for tensor in named.values():
            tensor.fill_(7)
    scalars["of"]["step"] = 2
    assert (writer.saved, steps(tmp_path)) == (None, [])
    disk.free.set()
    writer.settle()
    found = load_latest(tmp_path)
    assert found is not None
    assert equal(found.tensors, state(1))
    assert torch.equal(found.own["mean"], state(1)["method"]["weight"])
    assert found.scalars == {"of": {"step": 1}}
    assert (writer.saved, found.step) == (1, 1)


def test_one_is_written_at_a_time_and_in_order(tmp_path: Path, disk: Disk) -> None:
    writer = Writer(tmp_path, 2)
    disk.free.clear()
    writer.save(1, state(1), {})
    freed = threading.Timer(0.2, disk.free.set)
    freed.start()
    for step in range(2, 6):
        writer.save(step, state(step), {}, best=1)
        assert writer.saved == step - 1
        assert step - 1 in steps(tmp_path)
    writer.settle()
    writer.settle()
    assert (disk.order, disk.most, steps(tmp_path)) == ([1, 2, 3, 4, 5], 1, [1, 4, 5])
    freed.join()


def test_the_copy_takes_its_space_again() -> None:
    copy, net = HostCopy(), torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    net.weight.requires_grad_(False)
    net.weight.fill_(1)
    first = copy.of({"net": net.state_dict()})["net"]["weight"]
    assert first.is_contiguous()
    net.weight.fill_(2)
    again = copy.of({"net": net.state_dict(), "more": {"x": torch.ones(2)}})
    assert again["net"]["weight"].data_ptr() == first.data_ptr()
    assert torch.equal(again["net"]["weight"], net.weight)
    grown = copy.of({"net": {"weight": torch.ones(5)}})
    assert {part: list(named) for part, named in grown.items()} == {"net": ["weight"]}
    assert torch.equal(grown["net"]["weight"], torch.ones(5))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run that nothing disturbed."""
    recipe = tiny(BYOLConfig, data, tmp_path_factory.mktemp("whole") / "run", checkpoints=Checkpoints(1, 0))
    run(recipe)
    return recipe


class DiedError(BaseException):
    """Ends a run as SIGKILL would, and its writer with it."""


@pytest.mark.parametrize("moment", ["writing", "naming", "deleting"])
def test_a_run_killed_while_it_writes_goes_on_bit_for_bit(
    moment: str, whole: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, descend = elsewhere(whole, tmp_path / "run"), Loop.descend
    name = {"writing": "serialized", "naming": "commit", "deleting": "prune"}[moment]
    original, dying = getattr(saving, name), threading.Event()

    def until_the_end(*given: Any) -> Any:
        return threading.Event().wait() if dying.is_set() else original(*given)

    def step(loop: Loop, batches: Any) -> None:
        if loop.step == 3:
            loop.writer.settle()
            dying.set()
        if loop.step == 4:  # its checkpoint is never finished
            while moment == "deleting" and not (loop.folder.checkpoints / "step-00000004").exists():
                time.sleep(0.01)
            monkeypatch.setattr(Writer, "close", lambda *_: None)
            raise DiedError
        descend(loop, batches)

    with monkeypatch.context() as patch:
        patch.setattr(saving, name, until_the_end)
        patch.setattr(Loop, "descend", step)
        with pytest.raises(DiedError):
            run(recipe)
    monkeypatch.undo()
    left = steps(tmp_path / "run" / "checkpoints")
    assert left[-1] == (4 if moment == "deleting" else 3)
    assert load_latest(tmp_path / "run" / "checkpoints").skipped == ()  # type: ignore[union-attr]
    run(recipe)
    assert outcome(tmp_path / "run") == outcome(whole.folder)


def test_a_disk_that_fills_up_ends_the_run_at_the_next_step(whole: Recipe, tmp_path: Path, disk: Disk) -> None:
    recipe, disk.full_at = elsewhere(whole, tmp_path / "run"), 2
    with pytest.raises(CheckpointError, match=r"step 2 could not be written .*No space left.*the checkpoints before"):
        run(recipe)
    assert steps(tmp_path / "run" / "checkpoints") == [0, 1]
    disk.full_at = None
    run(recipe)
    assert outcome(tmp_path / "run") == outcome(whole.folder)


def test_a_failure_is_not_kept_for_the_next_save(
    whole: Recipe, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, descend, disk.full_at = elsewhere(whole, tmp_path / "run"), Loop.descend, 2
    made: list[int] = []

    def step(loop: Loop, batches: Any) -> None:
        if loop.writer.thread is not None:
            loop.writer.thread.join()
        descend(loop, batches)
        made.append(loop.step)

    monkeypatch.setattr(Loop, "descend", step)
    monkeypatch.setattr(Due, "after", lambda due, step: step == 2)
    with pytest.raises(CheckpointError, match="step 2 could not be written"):
        run(recipe)
    assert made == [1, 2, 3]


def poison(loop: Loop) -> None:
    loop.method.state_dict()["backbone.conv1.weight"].fill_(torch.nan)


def fail(loop: Loop) -> None:
    raise RuntimeError("something else")


ENDS: dict[str, tuple[Callable[[Loop], None], type[BaseException], str]] = {
    "numbers that are none": (poison, NotFiniteError, "the last good checkpoint is .*step-00000003"),
    "any error": (fail, RuntimeError, "something else"),
    "any error, and a signal meanwhile": (fail, RuntimeError, "something else"),
    "a signal": (lambda loop: loop.stop.note(15, None), SystemExit, "143"),
}


def free(disk: Disk, signalled: Loop | None) -> None:
    """Let the disk be written to, once a run that is to be signalled has noted that."""
    if signalled is not None:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
        while signalled.stop.received is None:
            time.sleep(0.01)
    disk.free.set()


@pytest.mark.parametrize("end", ENDS)
def test_any_end_of_a_run_waits_for_its_checkpoint(
    end: str, whole: Recipe, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, descend, wait = elsewhere(whole, tmp_path / "run"), Loop.descend, Writer.wait
    happens, error, told = ENDS[end]
    meanwhile: list[threading.Thread] = []

    def step(loop: Loop, batches: Any) -> None:
        descend(loop, batches)
        if loop.step == 3:
            loop.writer.settle()
            disk.free.clear()
            signalled = loop if "meanwhile" in end else None
            meanwhile.append(threading.Thread(target=free, args=(disk, signalled), daemon=True))
        if loop.step == 4:
            happens(loop)

    def waits(writer: Writer, step: int) -> None:
        if meanwhile:
            meanwhile.pop().start()
        wait(writer, step)

    monkeypatch.setattr(Loop, "descend", step)
    monkeypatch.setattr(Writer, "wait", waits)
    late: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: late.append(number))
    try:
        with pytest.raises(error, match=told):
            run(recipe)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not late  # it came while the run still saw to signals
    assert steps(tmp_path / "run" / "checkpoints")[-1] == (4 if end == "a signal" else 3)
    assert not list((tmp_path / "run" / "checkpoints").glob(".tmp-*"))
