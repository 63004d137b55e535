"""A save killed at any moment, or on a full disk, leaves a whole checkpoint: the one before, or the new one."""

from __future__ import annotations

import builtins
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_checkpoints import equal, put, state, steps
from warm_processes import run_program

from ssl_backbones.runs import saving
from ssl_backbones.runs.checkpoint import load_latest
from ssl_backbones.runs.manifest import CheckpointError


class Killed(BaseException):
    """Ends a save as SIGKILL would: nothing of ours catches it."""


class Fuse:
    """Ends the process before the n-th change to the disk."""

    def __init__(self, changes: int) -> None:
        self.left = changes

    def __call__(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **named: Any) -> Any:
            if self.left == 0:
                raise Killed
            self.left -= 1
            return original(*arguments, **named)

        return changed


@pytest.fixture
def lit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Fuse], None]]:
    """Light a fuse under everything through which a save touches the disk."""

    def light(fuse: Fuse) -> None:
        for name in ("open", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir"):
            monkeypatch.setattr(os, name, fuse(getattr(os, name)))
        monkeypatch.setattr(builtins, "open", fuse(open))
        monkeypatch.setattr(shutil, "rmtree", fuse(shutil.rmtree))

    yield light
    monkeypatch.undo()


def torn_at(folder: Path, changes: int, lit: Callable[[Fuse], None], monkeypatch: pytest.MonkeyPatch) -> bool:
    """True if a save of step 3 over steps 1 and 2 was cut short after so many changes to the disk."""
    lit(Fuse(changes))
    try:
        put(folder, 3, own={"mean": torch.ones(2)})
    except Killed:
        return True
    finally:
        monkeypatch.undo()
    return False


def test_a_save_may_be_killed_anywhere(
    tmp_path: Path, lit: Callable[[Fuse], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for changes in range(200):
        folder = tmp_path / str(changes)
        for step in (1, 2):
            put(folder, step, own={"mean": torch.zeros(2)})
        torn = torn_at(folder, changes, lit, monkeypatch)
        loaded = load_latest(folder)
        assert loaded is not None
        assert loaded.skipped == ()
        assert equal(loaded.tensors, state(loaded.step))
        seen.append(loaded.step)
        put(folder, 4)
        assert steps(folder)[-1] == 4
        assert len(steps(folder)) == 2
        assert not list(folder.glob(".tmp-*"))
        if not torn:
            break
    assert seen == sorted(seen)
    assert {2, 3} == set(seen)
    assert len(seen) > 15


def test_the_only_one_survives_its_own_replacement(
    tmp_path: Path, lit: Callable[[Fuse], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for changes in range(200):
        folder = tmp_path / str(changes)
        put(folder, 2, keep=1)
        torn = torn_at(folder, changes, lit, monkeypatch)
        loaded = load_latest(folder)
        assert loaded is not None
        assert equal(loaded.tensors, state(loaded.step))
        if not torn:
            return
    raise AssertionError("the save never ended")


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from ssl_backbones.runs.checkpoint import load_latest
from ssl_backbones.runs.saving import save
folder, random_ = Path(sys.argv[1]), random.Random(0)
reached = 0
save(folder, 0, {"part": {"x": torch.zeros(50_000)}}, {"step": 0})
for kill in range(12):
    child = os.fork()
    if child == 0:
        for step in range(reached + 1, 10**6):
            save(folder, step, {"part": {"x": torch.full((50_000,), float(step))}}, {"step": step})
    while not (folder / f"step-{reached + 1:08}").exists():
        time.sleep(0.001)
    time.sleep(random_.uniform(0.0, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    loaded = load_latest(folder)
    assert not loaded.skipped, loaded.skipped
    assert loaded.step > reached
    assert loaded.scalars == {"step": loaded.step}
    assert bool((loaded.tensors["part"]["x"] == loaded.step).all())
    reached = loaded.step
print(reached)
"""


def test_sigkill_while_saving_all_the_time(tmp_path: Path) -> None:
    done = run_program(KILLS, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 12


@pytest.mark.parametrize("at", range(4))
def test_a_full_disk_is_one_sentence_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    put(tmp_path, 1)
    original, written = saving.create_file, []

    def full(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) > at:
            path.write_bytes(content[: len(content) // 2])
            raise OSError(28, "No space left on device", str(path))
        original(path, content)

    monkeypatch.setattr(saving, "create_file", full)
    if at == 3:
        put(tmp_path, 2)
        return
    with pytest.raises(CheckpointError, match=r"step 2 .*No space left.* it needs 0\.0 MB and [\d.]+ MB are free"):
        put(tmp_path, 2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000001"]
    monkeypatch.undo()
    put(tmp_path, 2)
    assert steps(tmp_path) == [1, 2]
