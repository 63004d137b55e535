"""A process that ends, however it ends, takes along what it started, and leaves no folder of temporary files."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from limits import HANG
from published import TERMS
from runs import image_folder, run, tiny
from warm_processes import line_of, start_program

from ssl_backbones.cleanup import run_to_end
from ssl_backbones.commands import convert, embed
from ssl_backbones.hub.bundle import write_bundle
from ssl_backbones.hub.publishing.files import check_empty
from ssl_backbones.methods import MoCoV2Config
from ssl_backbones.refusal import Refusal

ENDS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

FAMILY = """
import fcntl, os, signal, subprocess, sys, time
place, deaf = sys.argv[1], sys.argv[2] == "deaf"
leads = len(sys.argv) == 3 or sys.argv[3] != "child"
name = "parent" if leads else "child"
def stopped(*_):
    open(f"{place}/{name}-stopped", "w").close()
    if not deaf:
        sys.exit(143)
signal.signal(signal.SIGTERM, stopped)
file = open(f"{place}/{name}-lives", "w")
fcntl.lockf(file, fcntl.LOCK_EX)
if leads:
    child = subprocess.Popen([sys.executable, __file__, place, sys.argv[2], "child"])
open(f"{place}/{name}-ready", "w").close()
while True:
    time.sleep(0.05)
"""
"""A process and its child, each of which holds a lock while it lives; deaf ones do not end when they are told to."""

RUNNER = """
import sys
from ssl_backbones.cleanup import run_to_end
with open(sys.argv[1], "wb") as log:
    run_to_end(sys.argv[3:], log, float(sys.argv[2]))
"""

COMMAND = """
import sys
from ssl_backbones.commands import run
sys.exit(run(sys.argv[1], sys.argv[2:], sys.argv[1]))
"""

PUBLISHING = """
import os, sys, tempfile, time
tempfile.tempdir = os.environ["TMPDIR"]
from ssl_backbones.commands import publish, run
def introduce(folder, files, options, terms):
    print(f"{folder}", flush=True)
    time.sleep(10_000)
publish.introduce = introduce
sys.exit(run("publish", sys.argv[1:], "publish"))
"""


@pytest.fixture
def begin() -> Iterator[Callable[..., BaseProcess]]:
    """Starts programs, and ends those that a failed test leaves."""
    begun: list[BaseProcess] = []

    def one(*given: Any, **more: Any) -> BaseProcess:
        begun.append(start_program(*given, **more))
        return begun[-1]

    yield one
    for process in begun:
        process.kill()


def until(done: Callable[[], bool]) -> None:
    give_up = time.monotonic() + HANG
    while not done():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def is_dead(place: Path, name: str) -> bool:
    """True once the process that locked its file there has ended."""
    with open(place / f"{name}-lives", "r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """The script of a process with a child, in a folder of its own."""
    (tmp_path / "family").mkdir()
    (tmp_path / "family.py").write_text(FAMILY)
    return tmp_path / "family.py"


def all_end(place: Path) -> None:
    for name in ("parent", "child"):
        until(lambda name=name: is_dead(place, name))  # type: ignore[misc]


def embedding(place: Path, **more: Any) -> embed.Options:
    """The options of embedding images into a folder for TensorBoard's projector."""
    return embed.Options(model="resnet8", data="none", out=place.parent / "features.npy", projector=place, **more)


MAKING: dict[str, Callable[[Path], object]] = {
    "bundle": lambda place: write_bundle([], place),
    "convert": lambda place: convert.run(convert.Options(Path("none.pth"), place)),
    "publish": check_empty,
    "embed": lambda place: embed.check_outputs(embedding(place)),
}
"""Everything that makes a folder to hold what it writes alone, as far as it refuses a place."""


@pytest.mark.parametrize("make", MAKING.values(), ids=MAKING)
def test_a_folder_is_made_neither_over_a_file_nor_among_others(make: Callable[[Path], object], tmp_path: Path) -> None:
    taken = tmp_path / "folder"
    taken.mkdir()
    (taken / "file").write_text("mine")
    for place in (taken, taken / "file"):
        with pytest.raises(Refusal, match="empty"):
            make(place)
    assert (taken / "file").read_text() == "mine"


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Refusal, match="empty"):
        embed.check_outputs(embedding(tmp_path / "file", overwrite=True))
    embed.check_outputs(embedding(tmp_path, overwrite=True))


@pytest.mark.parametrize("manners", ["polite", "deaf"])
@pytest.mark.parametrize("end", ENDS)
def test_a_command_ends_with_the_process_that_runs_it(
    end: signal.Signals, manners: str, family: Path, tmp_path: Path, begin: Callable[..., BaseProcess]
) -> None:
    place, grace = tmp_path / "family", "60" if manners == "polite" else "0.5"
    words = [tmp_path / "log", grace, sys.executable, family, place, manners]
    runner = begin(RUNNER, *words, said=[tmp_path / "said"] * 2)
    until(lambda: (place / "child-ready").exists() and (place / "parent-ready").exists())
    assert not is_dead(place, "child")
    assert runner.pid
    os.kill(runner.pid, end)
    all_end(place)
    assert (place / "parent-stopped").exists()
    assert (place / "child-stopped").exists()
    runner.join()


def comparing_words(family: Path, folder: Path) -> list[str]:
    """The words of a comparison whose jobs are a polite process with a child."""
    launch = shlex.join([sys.executable, str(family), str(folder / "family"), "polite"])
    data = image_folder(folder / "photos")
    return ["compare", "sample", "--data", str(data), "--out", str(folder / "out"), "--launch", launch]


def test_a_comparison_takes_along_what_it_runs(family: Path, tmp_path: Path, begin: Callable[..., BaseProcess]) -> None:
    place, words = tmp_path / "family", comparing_words(family, tmp_path)
    comparing = begin(COMMAND, *words, said=[tmp_path / "said"] * 2)
    until(lambda: (place / "child-ready").exists() or not comparing.is_alive())
    assert comparing.pid
    os.kill(comparing.pid, signal.SIGKILL)
    all_end(place)
    comparing.join()


def test_ctrl_c_in_a_comparison_waits_for_what_it_runs_and_is_one_sentence(
    family: Path, tmp_path: Path, begin: Callable[..., BaseProcess]
) -> None:
    place, words = tmp_path / "family", comparing_words(family, tmp_path)
    comparing = begin(COMMAND, *words, said=[tmp_path / "out.txt", tmp_path / "err.txt"])
    until(lambda: (place / "child-ready").exists() or not comparing.is_alive())
    assert comparing.pid
    os.kill(comparing.pid, signal.SIGINT)
    comparing.join()
    assert is_dead(place, "parent")
    assert is_dead(place, "child")
    assert comparing.exitcode == 130
    assert (tmp_path / "err.txt").read_text() == "compare: interrupted; the same command goes on from what is kept\n"


def test_the_exit_code_is_the_commands(tmp_path: Path) -> None:
    for source, code in (("pass", 0), ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)):
        with open(tmp_path / "log", "wb") as log:
            assert run_to_end([sys.executable, "-c", f"print('said', flush=True); {source}"], log) == code
        assert (tmp_path / "log").read_text() == "said\n"


@pytest.mark.parametrize("end", ENDS)
def test_publishing_that_is_killed_leaves_no_copy(
    end: signal.Signals, tmp_path: Path, begin: Callable[..., BaseProcess]
) -> None:
    made = run(tiny(MoCoV2Config, image_folder(tmp_path / "photos"), tmp_path / "run", epochs=1)).path
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    said = [tmp_path / "out.txt", tmp_path / "err.txt"]
    words = [made, "--repo", "org/name", *TERMS, "--with_state", "--dry_run"]
    publishing = begin(PUBLISHING, *words, said=said, TMPDIR=str(temporary))
    folder = Path(line_of(publishing, said[0]))
    assert folder.parent == temporary
    assert list(folder.glob("checkpoints/*/*.safetensors"))
    assert publishing.pid
    os.kill(publishing.pid, end)
    publishing.join()
    until(lambda: not folder.exists())
    assert [path for path in temporary.iterdir() if path.name.startswith(("publish-", "verify-"))] == []
