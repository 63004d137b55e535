"""The threads of a CPU: as many as this process may use, and none that spins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from ssl_backbones import cores
from ssl_backbones.cores import threads_here, threads_spin
from ssl_backbones.train import processes
from ssl_backbones.train.loader import reading_workers


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A machine of eight cores, without a container, whose environment says nothing."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "QUOTA", tmp_path / "cpu.max")
    for name in (cores.VARIABLE, "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as accelerate launch sets it
    return monkeypatch


def test_a_process_alone_has_all_cores(eight: pytest.MonkeyPatch) -> None:
    assert threads_here() == 8


@pytest.mark.parametrize(("processes", "expected"), [("2", 4), ("3", 2), ("16", 1), ("x", 8), ("0", 8)])
def test_processes_share_them(eight: pytest.MonkeyPatch, processes: str, expected: int) -> None:
    eight.setenv("LOCAL_WORLD_SIZE", processes)
    assert threads_here() == expected


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 8), ("150000 100000", 2), ("1600000 100000", 8), ("", 8)]
)
def test_a_container_may_have_fewer(eight: pytest.MonkeyPatch, quota: str, expected: int) -> None:
    cores.QUOTA.write_text(quota)
    assert threads_here() == expected
    assert reading_workers(None) == expected - 1


@pytest.mark.parametrize(("given", "expected"), [("3", 3), ("0", 1), ("many", 1)])
def test_the_environment_rules(eight: pytest.MonkeyPatch, given: str, expected: int) -> None:
    eight.setenv(cores.VARIABLE, given)
    assert threads_here() == expected


def test_threads_sleep_in_our_programs_and_nowhere_else() -> None:
    """The module is run by itself, under the names that programs are started by."""
    script = "import os, sys; sys.argv = eval(sys.argv[1]); path = sys.argv.pop(); "
    script += (
        "exec(open(path).read(), {'__name__': 'cores', '__file__': path}); print(os.environ.get('OMP_WAIT_POLICY'))"
    )
    module = str(ROOT / "ssl_backbones" / "cores.py")
    bare = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    answers = {}
    for program in ("/usr/bin/ssl-backbones", str(ROOT / "training" / "pretrain.py"), "somebodys.py", ""):
        words = [sys.executable, "-c", script, repr([program, module])]
        done = subprocess.run(words, capture_output=True, text=True, env=bare, check=True)
        answers[Path(program).name] = done.stdout.strip()
    assert answers == {"ssl-backbones": "PASSIVE", "pretrain.py": "PASSIVE", "somebodys.py": "None", "": "None"}


@pytest.mark.parametrize(
    ("threads", "policy", "spin"),
    [("2", None, True), ("2", "PASSIVE", False), ("2", "ACTIVE", False), ("1", None, False)],
)
def test_a_process_that_others_began_says_that_its_threads_spin(
    threads: str, policy: str | None, spin: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a notebook's does, which has imported torch long before; whoever chose a policy has chosen it."""
    monkeypatch.setenv(cores.VARIABLE, threads)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    assert threads_spin() == spin
    processes.meet()
    assert (processes.SPINNING in capsys.readouterr().out) == spin
