"""A teacher's kept features on a disk that fails, under SIGKILL, and made by several runs or machines at once."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from failing_disk import ERRORS, Disk, failing
from limits import HANG
from safetensors.numpy import load_file, save_file
from small_methods import SMALL, Drawn, leave_teacher
from torch import Tensor
from two_processes import run_two_processes
from waiting_makers import let_both_end

from ssl_backbones import locks, shared_disk
from ssl_backbones.files import PRIVATE
from ssl_backbones.locks import NoLocksError
from ssl_backbones.models import kept_features
from ssl_backbones.models.kept_features import INDEX, LOCK, keep_features
from ssl_backbones.models.teacher import Teacher, TeacherError
from ssl_backbones.narrator import NARRATOR, SILENCE

COUNT = 11


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_features, "BLOCK", 4)


@pytest.fixture
def undisturbed(tmp_path: Path) -> np.ndarray:
    return keep(tmp_path / "undisturbed")


@pytest.fixture
def other(tmp_path: Path) -> Teacher:
    """Another teacher, whose features have the same width."""
    return Teacher(str(leave_teacher(tmp_path / "other", seed=8)))


@cache
def usual() -> Teacher:
    return Teacher(SMALL["teacher"])


def keep(folder: Path, teacher: Teacher | None = None) -> np.ndarray:
    """The features of a few images, out of a folder."""
    return keep_features(teacher or usual(), 32, Drawn(COUNT), folder)[np.arange(COUNT)]


@pytest.mark.parametrize("damage", ["values", "cut", "emptied", "gone"])
def test_a_block_that_was_harmed_is_made_anew(damage: str, undisturbed: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "undisturbed" / "00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    harmed = {"values": bytes(content), "cut": bytes(content[:-2]), "emptied": b""}
    path.unlink()
    if damage in harmed:
        path.write_bytes(harmed[damage])
    np.testing.assert_array_equal(keep(tmp_path / "undisturbed"), undisturbed)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("teacher", "another teacher"),
        ("layer", "another layer"),
        ("size", "another way or size"),
        ("data", "other im"),
    ],
)
def test_those_of_something_else_are_refused(other: str, words: str, tmp_path: Path) -> None:
    keep(tmp_path / "kept")
    folder = leave_teacher(tmp_path / "teacher", seed=8) if other == "teacher" else SMALL["teacher"]
    teacher = Teacher(folder, "layer2" if other == "layer" else "")
    images = Drawn(11, seed=1) if other == "data" else Drawn(11)
    with pytest.raises(TeacherError, match=rf"the features in .* are of .*{words}.*: delete .* --method.kept"):
        keep_features(teacher, 48 if other == "size" else 32, images, tmp_path / "kept")


def test_an_index_that_was_changed_is_refused(tmp_path: Path) -> None:
    keep(tmp_path / "kept")
    index = tmp_path / "kept" / INDEX
    index.write_text(index.read_text().replace("11 images", "12 images"))
    with pytest.raises(TeacherError, match=r"INDEX.json was changed"):
        keep(tmp_path / "kept")


def test_a_block_of_another_teacher_is_made_anew(tmp_path: Path, undisturbed: np.ndarray, other: Teacher) -> None:
    for folder, teacher in (("kept", None), ("of another", other)):
        keep(tmp_path / folder, teacher)
    shutil.copy(tmp_path / "of another" / "00001.safetensors", tmp_path / "kept" / "00001.safetensors")
    np.testing.assert_array_equal(keep(tmp_path / "kept"), undisturbed)


def test_blocks_of_earlier_versions_are_taken(
    tmp_path: Path, undisturbed: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path / "undisturbed").glob("*.safetensors"):
        rows = load_file(path)
        save_file(rows, path, {"sha256": kept_features.digest(rows["features"].tobytes())})
    monkeypatch.setattr(kept_features, "embedded", None)
    np.testing.assert_array_equal(keep(tmp_path / "undisturbed"), undisturbed)


def test_a_folder_that_was_begun_anew_for_another_teacher_is_left_to_it(
    tmp_path: Path, other: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded, others = kept_features.embedded, []

    def overtaken(*given: Any) -> tuple[Tensor, Tensor]:
        monkeypatch.setattr(kept_features, "embedded", embedded)
        shutil.rmtree(tmp_path / "kept")
        others.append(keep(tmp_path / "kept", other))
        return embedded(*given)

    monkeypatch.setattr(kept_features, "embedded", overtaken)
    with pytest.raises(TeacherError, match=r"the features in .* are of another teacher.*: delete .* --method.kept"):
        keep(tmp_path / "kept")
    np.testing.assert_array_equal(keep(tmp_path / "kept", other), others[0])


def forked(folder: Path, said: Path, hold: int | None = None, kill: int | None = None) -> multiprocessing.Process:
    """A process that keeps features, and waits before a block for "go" beside what it says, or dies as it writes it."""
    embedded, replace, made = kept_features.embedded, os.replace, []

    def counted(*given: Any) -> tuple[Tensor, Tensor]:
        made.append(given[3])
        print("a block", flush=True)
        while len(made) == hold and not said.with_name("go").exists():
            time.sleep(0.01)
        return embedded(*given)

    def dying(*given: Any) -> None:
        if len(made) == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*given)

    def work() -> None:
        kept_features.embedded, os.replace = counted, dying
        with open(said, "w", buffering=1) as file, contextlib.redirect_stdout(file):
            keep(folder)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process  # type: ignore[return-value]


def test_of_two_runs_one_makes_the_features_and_the_other_waits(tmp_path: Path, undisturbed: np.ndarray) -> None:
    said = [tmp_path / "first", tmp_path / "second"]
    makers = [forked(tmp_path / "kept", each, hold=2) for each in said]
    let_both_end(
        makers,
        lambda: any("another run makes" in path.read_text() for path in said if path.exists()),
        tmp_path / "go",
    )
    told = "".join(path.read_text() for path in said)
    assert (told.count("a block"), told.count("another run makes the features in")) == (3, 1)
    np.testing.assert_array_equal(keep(tmp_path / "kept"), undisturbed)


def test_a_making_that_was_killed_in_a_block_goes_on_with_it(
    tmp_path: Path, undisturbed: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = forked(tmp_path / "kept", tmp_path / "said", kill=2)
    maker.join(HANG)
    assert maker.exitcode == -signal.SIGKILL
    assert len([*(tmp_path / "kept").glob(f"{PRIVATE}*")]) == 1
    made, embedded = [], kept_features.embedded
    monkeypatch.setattr(kept_features, "embedded", lambda *given: (made.append(int(given[3][0])), embedded(*given))[1])
    np.testing.assert_array_equal(keep(tmp_path / "kept"), undisturbed)
    assert made == [4, 8]
    assert not [*(tmp_path / "kept").glob(f"{PRIVATE}*")]


@pytest.mark.parametrize("failure", [TeacherError, OSError, KeyboardInterrupt])
def test_a_making_that_fails_lets_go_of_the_folder(
    failure: type[BaseException], tmp_path: Path, undisturbed: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []

    def failing_work(*_: Any) -> None:
        held.append((tmp_path / "kept" / LOCK).read_text())
        raise failure("in the middle")

    embedded = kept_features.embedded
    monkeypatch.setattr(kept_features, "embedded", failing_work)
    with pytest.raises(failure, match="in the middle"):
        keep(tmp_path / "kept")
    monkeypatch.setattr(kept_features, "embedded", embedded)
    assert json.loads(held[0])["pid"] == os.getpid()
    assert (tmp_path / "kept" / LOCK).read_text() == ""
    np.testing.assert_array_equal(keep(tmp_path / "kept"), undisturbed)


def test_without_locks_of_the_system_features_are_read_and_none_are_made(
    tmp_path: Path, undisturbed: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    np.testing.assert_array_equal(keep(tmp_path / "undisturbed"), undisturbed)
    with pytest.raises(
        NoLocksError, match=r"^this system has no locks of POSIX, which .* a teacher's kept features need"
    ):
        keep(tmp_path / "kept")


def test_a_run_that_waits_says_so_time_and_again(
    tmp_path: Path, undisturbed: np.ndarray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock, tries = locks.Lock, iter([{"pid": 7, "host": "far"}] * 3)

    def held_for_a_while(path: Path) -> locks.Lock:
        if owner := next(tries, None):
            raise locks.LockedError(owner)
        return lock(path)

    def look(_: float) -> None:
        NARRATOR.heard_at -= SILENCE
        NARRATOR.look()

    monkeypatch.setattr(locks, "Lock", held_for_a_while)
    monkeypatch.setattr(locks, "time", SimpleNamespace(sleep=look, strftime=time.strftime))
    np.testing.assert_array_equal(keep(folder := tmp_path / "kept"), undisturbed)
    said = capsys.readouterr().out.splitlines()
    waiting = f"another run makes the features in {folder}: waiting for process 7 on far (if it is gone, delete "
    assert [line.startswith(waiting) for line in said].count(True) == 1
    assert said.count(f"Waiting for the run that makes the features in {folder} (0 s so far)") == 3


@pytest.mark.parametrize("number", ERRORS)
def test_a_disk_that_fails_is_told_and_the_making_goes_on(
    number: int, tmp_path: Path, undisturbed: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_features, "embedded", of_rows(undisturbed))
    calls = failing_at(None, tmp_path / "count", number)
    assert calls.pop().startswith("ftruncate")  # of the lock, when all is there
    for at in range(ERRORS.index(number), len(calls), len(ERRORS)):
        folder = tmp_path / str(at) / "kept"
        with pytest.raises(
            TeacherError, match=rf"^features cannot be kept in {folder} \({os.strerror(number)}\): name"
        ):
            failing_at(at + 1, folder, number)
        np.testing.assert_array_equal(keep(folder), undisturbed)
        assert not [*folder.glob(f"{PRIVATE}*")]


def of_rows(features: np.ndarray) -> Any:
    """A stand-in for the teacher's work: its features of before."""
    return lambda _, __, ___, rows: (torch.from_numpy(features[rows]), torch.ones(len(rows)))


def failing_at(call: int | None, folder: Path, number: int) -> list[str]:
    """The calls of the disk in a making of which one, and all that follow it, fail."""
    with failing(Disk(folder.parent, call, number)) as disk:
        keep(folder)
    return disk.calls


def test_a_disk_without_the_space_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = SimpleNamespace(free=COUNT * 64 * 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    keep(tmp_path / "as much as they take")
    free.free = 1_400_000
    monkeypatch.setattr(kept_features, "embedded", None)
    with pytest.raises(TeacherError, match=r"cannot be kept in .* \(they need about 1.4 MB and 1.4 MB are free\)"):
        keep_features(usual(), 32, Drawn(10_950), tmp_path / "kept")


def test_machines_that_do_not_share_the_folder_are_refused(tmp_path: Path) -> None:
    first, second = run_two_processes(as_machine, str(tmp_path), SMALL["teacher"])
    for said in (first, second):
        assert str(tmp_path / "1" / INDEX) in said
        assert "every machine of a run has to see the teacher's features: name a folder that all share" in said


def as_machine(rank: int, place: str, teacher: str) -> str:
    """The refusal of a process whose disk is its own, before any image is looked at."""
    shared_disk.VISIBLE_WITHIN, kept_features.embedded = 0.0, lambda *given: pytest.fail("looked at images")
    try:
        keep_features(Teacher(teacher), 32, Drawn(3), Path(place, str(rank)))
    except Exception as error:
        return str(error)
    return "made"
