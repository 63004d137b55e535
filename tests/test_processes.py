"""The processes of a run and the system around them: signals, trackers, launchers, and that two of them agree."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from limits import HANG
from runs import forget, tiny
from tinted import CPU, Colours, tints
from two_processes import RankError, run_two_processes
from warm_processes import line_of, start_program

from ssl_backbones import distributed
from ssl_backbones.distributed import OtherRankError, first_decides, in_every_process, made_everywhere
from ssl_backbones.evaluate.model import usual_device
from ssl_backbones.methods import BYOLConfig
from ssl_backbones.train import processes
from ssl_backbones.train.embed import embed
from ssl_backbones.train.loader import reading_workers
from ssl_backbones.train.processes import StopSignals, TrackerError, accelerator_of, check_trackers, meet
from ssl_backbones.train.running_means import RunningMeans

WAITING = """
import time
from ssl_backbones.train import processes
from ssl_backbones.train.processes import StopSignals
processes.ECHO = 1.0
stop = StopSignals()
print(stop.agreed(), flush=True)
while stop.agreed() is None:
    time.sleep(0.01)
print(stop.agreed(), flush=True)
time.sleep(3600)
"""


def test_a_first_signal_is_noted_its_echo_is_not_and_a_later_one_ends_the_process(tmp_path: Path) -> None:
    said = tmp_path / "said"
    process = start_program(WAITING, said=[said, said])
    assert line_of(process, said) == "None"
    process.terminate()
    process.terminate()  # as a launcher passes on what the terminal sent to all
    assert line_of(process, said, 1) == "143"
    process.join(1.5)
    assert process.is_alive()
    process.terminate()
    process.join(HANG)
    assert process.exitcode == -signal.SIGTERM


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 143)], ids=str
)
def test_signals_are_what_they_were_afterwards(number: signal.Signals, code: int) -> None:
    before = {name: signal.getsignal(name) for name in processes.STOPPING}
    stop = StopSignals()
    assert stop.agreed() is None
    assert signal.getsignal(number) == stop.note
    signal.raise_signal(number)
    signal.raise_signal(number)
    assert stop.agreed() == code
    stop.restore()
    assert {name: signal.getsignal(name) for name in processes.STOPPING} == before


def test_a_tracker_is_there_or_refused() -> None:
    check_trackers(("tensorboard",))
    check_trackers(("all",))
    check_trackers(())
    with pytest.raises(TrackerError, match=r"'clearml' cannot track the run \(its package .* ready here: tensorboard"):
        check_trackers(("tensorboard", "clearml"))
    with pytest.raises(TrackerError, match="knows no such tracker"):
        check_trackers(("tensorbored",))


class Told:
    """An accelerator with one tracker, itself, that keeps what it is told."""

    trackers: tuple[Any, ...] = ()

    def init_trackers(self, project: str, init_kwargs: dict[str, Any]) -> None:
        self.project, self.begun, self.trackers = project, init_kwargs, (self,)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        if "refuses" in values["data"]:
            raise ValueError(values["data"])
        self.settings = values


def test_a_tracker_is_told_settings_and_name_and_knows_a_run_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_NAME", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
    run = tiny(BYOLConfig, tmp_path, tmp_path / "mine", trackers=("tensorboard",))
    run = replace(run, data="https://name:secret@host/images.tar")
    begun, onward, again, other, refusing = (Told() for _ in range(5))
    said: list[str] = []
    for told, anew, out in [
        (begun, True, "mine"),
        (onward, False, "mine"),
        (again, True, "mine"),
        (other, False, "other"),
    ]:
        processes.start_trackers(told, replace(run, out=str(tmp_path / out)), anew, said.append)
    ids = [told.begun["wandb"]["id"] for told in (begun, onward, again, other)]
    assert (ids[0] == ids[1], len(set(ids))) == (True, 3)
    names = {"wandb": {"name": "mine", "id": ids[0], "resume": "allow"}, "mlflow": {"run_name": "mine"}}
    assert (begun.project, begun.begun, said) == ("ssl-backbones", names, [])
    assert begun.settings["optimizer.lr"] == 0.5
    assert (begun.settings["workers"], begun.settings["trackers"]) == (0, "['tensorboard']")
    assert {type(value) for value in begun.settings.values()} <= {bool, int, float, str}
    assert "secret" not in str(begun.settings)
    processes.start_trackers(refusing, replace(run, data="refuses"), False, said.append)
    assert (len(said), refusing.trackers) == (1, (refusing,))
    monkeypatch.setenv("WANDB_RUN_ID", "theirs")
    processes.start_trackers(onward, run, False, said.append)
    assert onward.begun["wandb"]["id"] == "theirs"


def test_the_launchers_settings_do_not_change_the_loss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    forget()
    accelerator = accelerator_of("fp32", (), str(tmp_path))
    found = accelerator.gradient_accumulation_steps, accelerator.mixed_precision
    forget()
    assert found == (1, "no")


@pytest.mark.parametrize(
    ("flag", "on", "off"),
    [*((flag, "true", "false") for flag in processes.TAKING_OVER), (processes.LAUNCHED, "INDUCTOR", "NO")],
)
def test_a_launcher_configured_to_take_the_network_over_is_refused(
    flag: str, on: str, off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where what it would take is installed."""
    monkeypatch.setenv(flag, on)
    with pytest.raises(processes.LauncherError, match=f"^{flag} is '{on}', but .*: unset it, or launch by torchrun"):
        processes.meet()
    monkeypatch.setenv(flag, off)
    processes.check_launcher()


def test_one_process_reads_beside_each_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert reading_workers(None) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert reading_workers(None) == 0
    assert reading_workers(7) == 7
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert reading_workers(None) == 31


@pytest.mark.skipif("SSL_BACKBONES_TEST_GPU" in os.environ, reason="a GPU was asked for")
def test_tests_compute_on_the_cpu_whatever_the_machine_has() -> None:
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["ACCELERATE_USE_CPU"]) == ("", "true")
    assert usual_device().type == meet().type == "cpu"
    forget()


def on_two(rank: int) -> dict[str, Any]:
    """The parts of a model on two processes."""
    assert meet().type == "cpu"
    decided = first_decides(lambda: f"by {rank}")
    refused = ""
    try:
        first_decides(lambda: [][rank])
    except (IndexError, OtherRankError) as error:
        refused = f"{type(error).__name__}: {error}"
    stop = StopSignals()
    quiet = stop.agreed()
    if rank == 1:
        signal.raise_signal(signal.SIGINT)
    late = stop.agreed()
    told = stop.agreed()
    stop.restore()
    window = RunningMeans(CPU)
    window.add({"loss": torch.tensor(float(rank)), "chance": 2.0})
    backbone = Colours()
    backbone.norm.running_mean += rank  # the first process's are those that count
    features, unreadable = embed(backbone, tints(9, unreadable=[8]), np.arange(7), CPU, batch_size=2)
    return {
        "decided": decided,
        "refused": refused,
        "signals": [quiet, late, told],
        "means": window.close(),
        "features": features,
        "running_mean": backbone.norm.running_mean,
        "trackers": accelerator_of("fp32", (), ".").num_processes,
        "unreadable": dict(unreadable),
    }


def test_two_processes_agree() -> None:
    first, second = run_two_processes(on_two)
    assert first["decided"] == second["decided"] == "by 0"
    assert first["refused"] == "IndexError: list index out of range"
    assert second["refused"] == "OtherRankError: list index out of range"
    assert first["signals"] == second["signals"] == [None, None, 130]  # a step later
    assert first["means"] == second["means"] == {"loss": 0.5, "chance": 2.0}
    assert first["trackers"] == second["trackers"] == 2
    alone, _ = embed(Colours(), tints(9), np.arange(7), CPU)
    assert torch.equal(first["features"], second["features"])
    torch.testing.assert_close(first["features"], alone)
    assert second["running_mean"].tolist() == [1, 1, 1]


def wait_long(rank: int, place: str, reports: float, slow: int) -> list[str]:
    """The answers of all where one process takes twice as long as the others would wait in silence."""
    dist.destroy_process_group()
    patience = timedelta(seconds=4)
    dist.init_process_group("gloo", init_method=place, rank=rank, world_size=2, timeout=patience)
    distributed.REPORTS = timedelta(seconds=reports)

    def work() -> str:
        time.sleep(2 * patience.total_seconds() if rank == slow else 0)
        return f"by {rank}"

    return [first_decides(work)] if slow == 0 else in_every_process(work)


@pytest.mark.slow
@pytest.mark.parametrize("slow", [0, 1], ids=["the first for all", "another"])
def test_a_process_that_reports_is_waited_for_and_one_in_silence_is_not(slow: int, tmp_path: Path) -> None:
    answers = [["by 0"], ["by 0", "by 1"]][slow]
    assert run_two_processes(wait_long, (tmp_path / "reporting").as_uri(), 0.5, slow) == [answers, answers]
    with pytest.raises(RankError, match=r"(?i)timed out"):
        run_two_processes(wait_long, (tmp_path / "silent").as_uri(), 60.0, slow)


def made_here(rank: int) -> list[str]:
    """Something that every process makes, and the error of something that the second cannot make."""
    found = [made_everywhere(lambda: f"by {rank}")]
    try:
        made_everywhere(lambda: [rank][rank])
    except Exception as error:
        found.append(type(error).__name__)
    return found


def test_what_one_process_cannot_make_none_has() -> None:
    assert run_two_processes(made_here) == [["by 0", "OtherRankError"], ["by 1", "IndexError"]]
