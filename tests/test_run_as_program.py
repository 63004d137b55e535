"""pretrain.py as a program, alone and under torchrun: told to end, it saves, and it can be started again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from limits import HANG
from two_processes import TORCHRUN
from warm_processes import start_program
from whole_runs import data

from ssl_backbones.runs import checkpoint

__all__ = ["data"]


PROGRAM = """
import sys
from ssl_backbones.commands import run
sys.exit(run("pretrain"))
"""


def command(*words: str) -> list[str]:
    return [sys.executable, "-W", "error::FutureWarning", str(ROOT / "training" / "pretrain.py"), *words]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def wait_for(line: str, process: subprocess.Popen[str]) -> str:
    """The output of a process until a line came."""
    assert process.stdout is not None
    seen = ""
    for printed in process.stdout:
        seen += printed
        if re.search(line, printed):
            return seen
    raise AssertionError(f"{line!r} never came: {seen}")


def small_program(data: Path, out: Path, epochs: int) -> list[str]:
    """The words for a run of one line of the log a step."""
    small = f"--size 16 --epochs {epochs} --batch-size 8 --method.bn-splits 2 --log-every 1 --workers 2"
    small += " --method.queue-size 16 --precision fp32 --layout contiguous --schedule.warmup-epochs 0"
    return ["sample", *small.split(), "--data", str(data), "--out", str(out)]


def started(words: list[str], **more: Any) -> subprocess.Popen[str]:
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(words, text=True, env=environment(), **both, **more)


def test_a_program_told_to_end_saves_and_can_be_started_again(data: Path, tmp_path: Path) -> None:
    words = command(*small_program(data, tmp_path / "run", 20_000))
    with started(words, start_new_session=True) as process:
        wait_for("step 1/60000", process)
        os.killpg(process.pid, signal.SIGTERM)  # as a cluster does, to the workers as well
        said = process.communicate(timeout=HANG)[0]
    assert process.returncode == 143, said
    step = int(re.search(r"Stopped after step (\d+) of 60000", said)[1])
    assert checkpoint.load_latest(tmp_path / "run" / "checkpoints").step == step
    assert "Traceback" not in said
    again = start_program(PROGRAM, *words[4:], said=[tmp_path / "said"] * 2, **environment())
    while f"Going on after step {step} of 60000" not in (said := read(tmp_path / "said")):
        assert again.is_alive(), said
        time.sleep(0.05)
    os.kill(again.pid, signal.SIGINT)
    again.join(HANG)
    assert again.exitcode in (130, -signal.SIGINT), read(tmp_path / "said")


def read(path: Path) -> str:
    """The output so far."""
    return path.read_text() if path.exists() else ""


@pytest.mark.slow
def test_torchrun_ends_both_processes_and_finishes_later(data: Path, tmp_path: Path) -> None:
    """Without ACCELERATE_USE_CPU: where there is no accelerator, there is nothing else to use."""
    words = [*TORCHRUN, str(ROOT / "training" / "pretrain.py"), *small_program(data, tmp_path / "run", 40)]
    with started(words) as process:
        wait_for(r"step \d+/120", process)
        process.terminate()
        said = process.communicate(timeout=HANG)[0]
    step = int(re.search(r"Stopped after step (\d+) of 120", said)[1])
    assert 0 < step < 120
    assert checkpoint.load_latest(tmp_path / "run" / "checkpoints").step == step
    with started(words) as process:
        said = process.communicate(timeout=HANG)[0]
    assert process.returncode == 0, said
    assert "on 2 processes (cpu" in said
    assert f"Going on after step {step} of 120" in said
    assert json.loads((tmp_path / "run" / "results.json").read_text())["compute"]["processes"] == 2


LAUNCHERS = {
    "python": [sys.executable],
    "accelerate": [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1"],
    "torchrun": [*TORCHRUN],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ctrl_c_ends_in_a_sentence_of_ours_with_everything_saved(launcher: str, data: Path, tmp_path: Path) -> None:
    """A terminal sends SIGINT to all of them; a launcher may pass it on, and tells of itself."""
    program = [str(ROOT / "training" / "pretrain.py"), *small_program(data, tmp_path / "run", 20_000)]
    with started([*LAUNCHERS[launcher], *program], start_new_session=True) as process:
        wait_for(r"step [1-9]\d*/60000", process)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=HANG)[0]
    stopped = re.findall(r"Stopped after step (\d+) of 60000; the same command goes on from there", said)
    assert len(stopped) == 1, said
    assert checkpoint.load_latest(tmp_path / "run" / "checkpoints").step == int(stopped[0])
    if launcher != "torchrun":  # whose own lines follow those of its processes
        assert said.rstrip().splitlines()[-1].startswith("Stopped after step"), said
    assert launcher != "python" or "Traceback" not in said
