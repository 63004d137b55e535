"""Processes of one run that die, hang, or are refused together: an end in bounded time, and one message."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from limits import HANG
from warm_processes import run_program, start_program
from whole_runs import data

from ssl_backbones.runs import checkpoint

__all__ = ["data"]

PROGRAM = """
import sys
from datetime import timedelta
from ssl_backbones import distributed
distributed.PATIENCE = timedelta(seconds=int(sys.argv.pop(1)))
from ssl_backbones.commands import run
sys.exit(run("pretrain"))
"""
LOST = """
import importlib, os, signal, sys
from datetime import timedelta
from ssl_backbones import distributed
distributed.PATIENCE = timedelta(seconds=int(sys.argv.pop(1)))
victim, place = sys.argv.pop(1).split(":")
from ssl_backbones.commands import run
if os.environ["RANK"] == victim:
    module, name = place.rsplit(".", 1)
    setattr(importlib.import_module(module), name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
sys.exit(run(sys.argv[1], sys.argv[2:], sys.argv[1]))
"""
BEFORE = [
    pytest.param("ssl_backbones.train.pretrain.meet_for", 1, 1, marks=pytest.mark.slow),
    ("ssl_backbones.train.pretrain.open_data", 0, HANG),
    pytest.param("ssl_backbones.train.prepare.load_latest", 1, HANG, marks=pytest.mark.slow),
    pytest.param("ssl_backbones.train.prepare.accelerator_of", 0, HANG, marks=pytest.mark.slow),
]
"""Work before the first step, the process that is lost there, and the seconds for which the other would wait."""
SMALL = "sample --size 16 --batch-size 8 --method.bn-splits 2 --log-every 1 --workers 0 --precision fp32"
SMALL += " --method.queue-size 16 --layout contiguous --schedule.warmup-epochs 0 --checkpoints.every-steps 2"


class Both:
    """Two processes of one run, as a launcher starts them, without a launcher that would end one for the other."""

    def __init__(
        self, data: Path, out: Path, patience: int, *more: str, epochs: int = 20_000, program: str = PROGRAM
    ) -> None:
        with socket.socket() as there:
            there.bind(("127.0.0.1", 0))
            port = there.getsockname()[1]
        self.out = out
        first, more = (more[:2], more[2:]) if program == LOST else ((), more)
        self.files = [out.with_name(f"said-{rank}.txt") for rank in range(2)]
        given = [*first, *SMALL.split(), "--epochs", str(epochs), "--data", str(data), "--out", str(out), *more]
        self.ranks = []
        for rank, file in enumerate(self.files):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
            place |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": 1}
            environment = {name: str(value) for name, value in place.items()}
            self.ranks.append(start_program(program, patience, *given, said=[file, file], **environment))

    def wait_for_checkpoint(self, seconds: float = HANG) -> None:
        """Return once the run has saved something of its training."""
        give_up = time.monotonic() + seconds
        while not list(self.out.glob("checkpoints/step-*[1-9]*")):
            assert time.monotonic() < give_up, self.said()
            assert all(rank.exitcode is None for rank in self.ranks), self.said()
            time.sleep(0.05)

    def said(self) -> list[str]:
        return [file.read_text() for file in self.files]

    def end(self) -> None:
        for rank in self.ranks:
            rank.kill()
            rank.join()

    def exit_code(self, rank: int) -> int | None:
        """The code that a rank ends with; None if it hangs."""
        self.ranks[rank].join(HANG)
        return self.ranks[rank].exitcode

    def signal(self, rank: int, number: signal.Signals) -> None:
        pid = self.ranks[rank].pid
        assert pid is not None
        os.kill(pid, number)


@pytest.fixture
def both(data: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Both]:
    pair = Both(data, tmp_path / "run", patience=request.param)
    yield pair
    pair.end()


@pytest.mark.parametrize("both", [10 * HANG], indirect=True)
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_process_that_is_killed_ends_the_other_at_once(both: Both, victim: int) -> None:
    """Long before a process that hangs would be given up."""
    both.wait_for_checkpoint()
    both.signal(victim, signal.SIGKILL)
    assert both.exit_code(1 - victim) == 2, both.said()
    said = both.said()[1 - victim]
    assert "Traceback" not in said, said
    assert said.count("another of the 2 processes is gone") == 1, said
    assert "is saved: the same command goes on from there" in said
    saved = checkpoint.load_latest(both.out / "checkpoints")
    assert saved is not None
    assert saved.step > 0


@pytest.mark.parametrize(("place", "victim", "patience"), BEFORE)
def test_a_process_that_is_lost_before_the_first_step_ends_the_other(
    data: Path, tmp_path: Path, place: str, victim: int, patience: int
) -> None:
    pair = Both(data, tmp_path / "run", patience, f"{victim}:{place}", "pretrain", program=LOST)
    try:
        assert pair.exit_code(1 - victim) == 2, pair.said()
    finally:
        pair.end()
    said = pair.said()[1 - victim]
    assert "Traceback" not in said, said
    assert said.count("another of the 2 processes is gone or has not answered") == 1, said
    assert "and the same command goes on from what is kept" in said


@pytest.mark.slow
@pytest.mark.parametrize("both", [60], indirect=True)
def test_a_process_that_hangs_is_given_up(both: Both) -> None:
    both.wait_for_checkpoint()
    both.signal(1, signal.SIGSTOP)
    assert both.exit_code(0) == 2, both.said()
    assert both.said()[0].count("another of the 2 processes is gone or has not answered") == 1
    both.signal(1, signal.SIGCONT)


def test_what_both_refuse_is_said_once(tmp_path: Path) -> None:
    pair = Both(tmp_path / "nowhere", tmp_path / "run", patience=HANG)
    assert [pair.exit_code(rank) for rank in range(2)] == [2, 2]
    first, second = pair.said()
    assert first.count("does not exist: give a folder") == 1
    assert "Traceback" not in first
    assert second == ""


@pytest.mark.slow
def test_what_ends_both_in_the_same_step_is_said_once(data: Path, tmp_path: Path) -> None:
    pair = Both(data, tmp_path / "run", HANG, "--optimizer.lr", "1e30", epochs=2)
    assert [pair.exit_code(rank) for rank in range(2)] == [2, 2]
    first, second = pair.said()
    assert first.count("the loss was not finite in step") == 1
    assert "the loss" not in second


@pytest.mark.slow
def test_two_processes_go_on_as_one_and_say_what_cannot_be_the_same(data: Path, tmp_path: Path) -> None:
    pair = Both(data, tmp_path / "run", patience=HANG, epochs=60)
    pair.wait_for_checkpoint()
    for rank in range(2):
        pair.signal(rank, signal.SIGTERM)
    assert {pair.exit_code(rank) for rank in range(2)} == {143}
    words = [*SMALL.split(), "--epochs", "60", "--data", str(data), "--out", str(tmp_path / "run")]
    done = run_program(PROGRAM, HANG, *words)
    assert done.returncode == 0, done.stderr
    assert "The rest may not be bit-identical to a run never stopped: world_size 2 -> 1" in done.stdout
    assert json.loads((tmp_path / "run" / "results.json").read_text())["compute"]["processes"] == 1
