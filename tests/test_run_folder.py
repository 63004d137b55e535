"""A run's folder belongs to one recipe and to one process, and holds no half-written file."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warm_processes import line_of, start_program

from ssl_backbones import locks
from ssl_backbones.files import write_json
from ssl_backbones.runs import run_folder
from ssl_backbones.runs.run_folder import RunFolder, RunFolderError, claim, differences

RECIPE = {"name": "sample", "lr": 0.3, "method": {"groups": 4, "widths": [1, 2]}}

HOLDER = """
import sys, time
from ssl_backbones.runs.run_folder import claim
folder = claim(sys.argv[1], {"lr": 1})
print("claimed", flush=True)
if len(sys.argv) > 2:
    import os
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(3600)
time.sleep(3600)
"""


def holder(folder: Path, said: Path, *more: str) -> BaseProcess:
    """A process that has claimed the folder and keeps it."""
    process = start_program(HOLDER, folder, *more, said=[said, said])
    assert line_of(process, said) == "claimed"
    return process


def stop(process: BaseProcess) -> None:
    process.kill()
    process.join()


def train(folder: Path, step: int = 1) -> None:
    """Leave what a run leaves that has saved its state after a step."""
    (folder / "checkpoints" / f"step-{step:08}").mkdir(parents=True)


def test_a_new_folder_gets_the_recipe(tmp_path: Path) -> None:
    with claim(tmp_path / "deep" / "run", {"betas": (0.9, 0.95)}) as folder:
        assert not folder.resumed
        assert json.loads(folder.recipe.read_text()) == {"betas": [0.9, 0.95]}
    assert sorted(entry.name for entry in folder.path.iterdir()) == [".lock", "recipe.json"]


def test_the_same_recipe_resumes_and_another_is_refused(tmp_path: Path) -> None:
    claim(tmp_path, RECIPE).release()
    train(tmp_path)
    with claim(tmp_path, json.loads(json.dumps(RECIPE))) as folder:
        assert folder.resumed
    other = {"name": "sample", "lr": 0.6, "method": {"groups": 8, "widths": [1, 2]}, "extra": 1}
    with pytest.raises(RunFolderError) as caught:
        claim(tmp_path, other)
    for words in (
        "extra is null there and 1 here",
        "lr is 0.3 there and 0.6 here",
        "method.groups is 4 there",
        "--out",
    ):
        assert words in str(caught.value)
    assert json.loads((tmp_path / "recipe.json").read_text()) == RECIPE


@pytest.mark.parametrize("step", [None, 0])
def test_a_run_that_trained_nothing_gives_its_folder_up(
    tmp_path: Path, step: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    claim(tmp_path, RECIPE).release()
    if step is not None:
        train(tmp_path, step)
    with claim(tmp_path, RECIPE | {"lr": 0.6}) as folder:
        assert not folder.resumed
        assert json.loads(folder.recipe.read_text())["lr"] == 0.6
    assert not (tmp_path / "checkpoints").exists()
    assert "ended before it had trained anything: begun anew (lr is 0.3 there and 0.6 here)" in caplog.text


def test_the_recipe_of_a_finished_run_is_not_touched(tmp_path: Path) -> None:
    claim(tmp_path, RECIPE).release()
    write_json(RunFolder(tmp_path).results, {"knn": 1})
    with pytest.raises(RunFolderError, match="another recipe"):
        claim(tmp_path, RECIPE | {"lr": 0.6})
    with claim(tmp_path, RECIPE | {"lr": 0.6}, may_differ=["lr"]) as folder:
        assert folder.resumed
        assert json.loads(folder.recipe.read_text()) == RECIPE


def test_fields_may_be_allowed_to_differ(tmp_path: Path) -> None:
    claim(tmp_path, RECIPE).release()
    train(tmp_path)
    other = RECIPE | {"lr": 0.6, "method": {"groups": 8, "widths": [1]}}
    with pytest.raises(RunFolderError, match="method"):
        claim(tmp_path, other, may_differ=["lr", "meth"])
    with claim(tmp_path, other, may_differ=["lr", "method"]) as folder:
        assert folder.resumed
        assert json.loads(folder.recipe.read_text()) == other


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / name).write_text("mine")
    with pytest.raises(RunFolderError, match=r"not a run's folder: it holds a, b, c and 1 more but no recipe"):
        claim(tmp_path, RECIPE)
    assert {entry.name for entry in tmp_path.iterdir()} == {*"abcd"}


def test_what_a_killed_claim_leaves_is_no_obstacle(tmp_path: Path) -> None:
    for name in (".lock", ".probe", ".tmp-recipe.json", ".tmp-0123456789abcdef"):
        (tmp_path / name).write_text("{")
    with claim(tmp_path, RECIPE) as folder:
        assert not folder.resumed
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_damaged_recipe_is_not_resumed(tmp_path: Path) -> None:
    claim(tmp_path, RECIPE).release()
    (tmp_path / "recipe.json").write_text('{"lr": ')
    with pytest.raises(RunFolderError, match="cannot be read"):
        claim(tmp_path, RECIPE)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunFolderError, match="cannot be written to"):
            claim(path, RECIPE)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(run_folder, "check_writable", full)
    with pytest.raises(RunFolderError, match="No space left"):
        claim(tmp_path / "run", RECIPE)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunFolderError, match="Permission denied"):
        claim(tmp_path, RECIPE)


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    process = holder(tmp_path / "run", tmp_path / "said")
    try:
        with pytest.raises(RunFolderError, match=f"in use by process {process.pid} on"):
            claim(tmp_path / "run", {"lr": 1})
    finally:
        stop(process)
    with claim(tmp_path / "run", {"lr": 1}) as folder:
        assert folder.resumed


def test_a_forked_worker_does_not_keep_the_folder(tmp_path: Path) -> None:
    process = holder(tmp_path / "run", tmp_path / "said", "fork")
    child = int(line_of(process, tmp_path / "said", 1))
    try:
        stop(process)
        os.kill(child, 0)
        claim(tmp_path / "run", {"lr": 1}).release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_release_lets_another_in(tmp_path: Path) -> None:
    folder = claim(tmp_path / "run", {"lr": 1})
    folder.release()
    folder.release()
    stop(holder(tmp_path / "run", tmp_path / "said"))


@pytest.mark.parametrize(("pid", "host", "refused"), [("dead", None, False), ("init", None, True), (3, "far", True)])
def test_without_locks_the_note_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: object, host: str | None, refused: bool
) -> None:
    def unsupported(descriptor: int, kind: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "lockf", unsupported)
    if pid == "dead":
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        pid = gone.pid
    note = {"pid": os.getppid() if pid == "init" else pid, "host": host or locks.socket.gethostname()}
    (tmp_path / ".lock").write_text(json.dumps(note))
    if refused:
        with pytest.raises(RunFolderError, match=f"in use by process {note['pid']} on {note['host']}"):
            claim(tmp_path, RECIPE)
    else:
        claim(tmp_path, RECIPE).release()
        claim(tmp_path, RECIPE).release()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder outside the run's, which is found unchanged in the end."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "precious").write_text("precious")
    yield folder
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"precious": "precious"}


@pytest.mark.parametrize("target", ["precious", "not yet"])
@pytest.mark.parametrize("name", [".probe", ".tmp-recipe.json", ".tmp-0123456789abcdef", "recipe.json", "results.json"])
def test_a_link_in_the_folder_is_not_written_through(tmp_path: Path, elsewhere: Path, name: str, target: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(elsewhere / target)
    if name == "recipe.json" and target == "precious":
        with pytest.raises(RunFolderError, match=r"recipe\.json cannot be read \(it is no JSON"):
            claim(tmp_path / "run", RECIPE)
        return
    with contextlib.suppress(RunFolderError), claim(tmp_path / "run", RECIPE) as folder:
        write_json(folder.results, {"knn": 0.5})


@pytest.mark.parametrize("name", [".lock", "backbone", "checkpoints"])
def test_a_link_in_place_of_a_part_of_the_folder_is_refused(tmp_path: Path, elsewhere: Path, name: str) -> None:
    claim(tmp_path / "run", RECIPE).release()
    (tmp_path / "run" / name).unlink(missing_ok=True)
    (tmp_path / "run" / name).symlink_to(elsewhere / "not yet" if name == ".lock" else elsewhere)
    with pytest.raises(RunFolderError, match="is a link, and nothing is written through links"):
        claim(tmp_path / "run", RECIPE)


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_modes_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        claim(tmp_path, RECIPE).release()
    finally:
        os.umask(before)
    assert (tmp_path / "recipe.json").stat().st_mode & 0o777 == 0o666 & ~mask


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, json_values)
def test_differences_are_found_exactly_where_there_are_any(there: object, here: object) -> None:
    assert not differences(there, there)
    if json.dumps(there, sort_keys=True) == json.dumps(here, sort_keys=True):
        assert not differences(there, here)
    found = differences(there, here)
    assert {name: (new, old) for name, (old, new) in found.items()} == differences(here, there)
