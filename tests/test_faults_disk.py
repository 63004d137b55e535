"""Disks that are full, folders that cannot be written to: one sentence, and what was saved before stays whole."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import elsewhere, outcome, run, tiny
from whole_runs import data

from ssl_backbones.methods import BYOLConfig
from ssl_backbones.recipes.settings import Checkpoints
from ssl_backbones.runs import checkpoint, saving
from ssl_backbones.runs.manifest import CheckpointError
from ssl_backbones.runs.run_folder import RunFolderError, claim
from ssl_backbones.runs.writer import Writer

__all__ = ["data"]

Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A file system in memory with options of `mount`, taken away at the end; skips where it cannot be had."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        path = tmp_path / f"disk-{len(mounted)}"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("only an administrator of this machine may mount a file system")
        mounted.append(path)
        return path

    yield make
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path, leave: int) -> Path:
    """Fill a file system but for some bytes."""
    filler = path / "filler"
    free = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
    filler.write_bytes(bytes(max(0, free - leave)))
    return filler


@pytest.mark.parametrize("leave", [0, 4096, 20_000, 60_000, 200_000])
def test_a_full_disk_is_told_and_the_checkpoint_before_is_whole(mount: Mount, leave: int) -> None:
    disk = mount("size=2m")
    state = {"method": {"weight": torch.arange(30_000.0)}, "optimizer": {"momentum": torch.ones(30_000)}}
    saving.save(disk / "run", 1, state, {"epoch": 1})
    filler = fill(disk, leave)
    with pytest.raises(CheckpointError, match=r"step 2 .*No space left.* it needs 0\.2 MB and 0\.[0-9] MB are free"):
        saving.save(disk / "run", 2, state, {"epoch": 2})
    saved = checkpoint.load_latest(disk / "run")
    assert saved is not None
    assert (saved.step, saved.skipped) == (1, ())
    assert torch.equal(saved.tensors["method"]["weight"], state["method"]["weight"])
    filler.unlink()
    saving.save(disk / "run", 2, state, {"epoch": 2})
    assert checkpoint.load_latest(disk / "run").step == 2
    assert not list((disk / "run").glob(".tmp-*"))


def test_a_run_on_a_disk_that_fills_up_goes_on_when_there_is_room(data: Path, mount: Mount, tmp_path: Path) -> None:
    recipe = tiny(BYOLConfig, data, tmp_path / "whole", checkpoints=Checkpoints(2, 0))
    run(recipe)
    there = elsewhere(recipe, mount("size=8m") / "run")
    filler = None
    original = Writer.save

    def filling(writer: Writer, step: int, *given: Any, **more: Any) -> None:
        nonlocal filler
        if step == 4 and filler is None:
            filler = fill(writer.folder.parents[1], 30_000)
        original(writer, step, *given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "save", filling)
        with pytest.raises(CheckpointError, match="step 4 could not be written"):
            run(there)
    assert filler is not None
    filler.unlink()
    run(there)
    assert outcome(Path(there.out)) == outcome(tmp_path / "whole")


def test_a_disk_that_cannot_be_written_to_is_refused_before_any_work(mount: Mount, data: Path) -> None:
    disk = mount("size=1m,ro")
    with pytest.raises(RunFolderError, match=r"cannot be written to \(Read-only file system\); give .* --out"):
        run(tiny(BYOLConfig, data, disk / "run"))
    full = mount("size=64k")
    fill(full, 0)
    with pytest.raises(RunFolderError, match=r"cannot be written to \(No space left on device\)"):
        claim(full / "run", {"lr": 1})


def unprivileged(work: Callable[[], None]) -> int:
    """The exit code of a process that does the work as nobody."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        ctypes.CDLL(None).setresuid(65534, 65534, 65534)
        work()
        code = 0
    except RunFolderError as error:
        code = 3 if "Permission denied" in str(error) else 1
    finally:
        os._exit(code)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="anybody else is stopped by the mode alone")
def test_a_folder_of_somebody_else_is_refused(shared_path: Path) -> None:
    assert unprivileged(lambda: claim(shared_path / "run", {"lr": 1}).release()) == 3
