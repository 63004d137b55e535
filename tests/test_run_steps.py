"""The steps of a run: micro-batches add up, gradients are exchanged once, and logs and trackers are told."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker
from runs import STEPS, after, asked_to_stop, elsewhere, outcome, run, sha, state, stop, tiny
from torch import nn
from whole_runs import NoisyConfig, data

from ssl_backbones.data import Batch
from ssl_backbones.methods import BYOLConfig, MethodConfig, MoCoV2Config, SimCLRConfig
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import Checkpoints, Monitoring, ScheduleConfig
from ssl_backbones.runs.log import read_log
from ssl_backbones.runs.manifest import folder_name
from ssl_backbones.train import due as due_module
from ssl_backbones.train.due import Due
from ssl_backbones.train.loop import Loop
from ssl_backbones.train.prepare import UnfitError
from ssl_backbones.train.processes import Stopped

__all__ = ["data"]


def test_micro_batches_add_up_to_the_batch(data: Path, tmp_path: Path) -> None:
    once = tiny(NoisyConfig, data, tmp_path / "once", {"noise": False})
    runs_ = [run(dataclasses.replace(elsewhere(once, tmp_path / f"{n}"), accumulation=n)).path for n in (1, 2, 4)]
    first, *others = ([state(path), read_log(path / "log.jsonl")] for path in runs_)
    for tensors, log in others:
        torch.testing.assert_close(tensors, first[0], rtol=1e-4, atol=1e-5)
        assert [line.keys() for line in log] == [line.keys() for line in first[1]]
        for line, expected in zip(log, first[1], strict=True):
            assert line == pytest.approx(expected, rel=1e-4)
            assert line.get("half", 0) == pytest.approx(line.get("loss", 0) / 2)
            assert line.get("one", 1) == 1


@pytest.mark.parametrize(
    ("epochs", "batch", "words"),
    [
        (1, 24, "1 epoch of 1 step, 24 images a step on 1 process (cpu, 1 thread)"),
        (2, 12, "2 epochs of 2 steps, 12 images a"),
    ],
)
def test_one_of_a_kind_is_told_as_one(
    epochs: int, batch: int, words: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny(NoisyConfig, data, tmp_path / "run", epochs=epochs, batch_size=batch))
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_norm_of_the_gradient_is_logged(
    accumulation: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of the steps since the line before."""
    norms, take_step = [], torch.optim.SGD.step

    def noted(self: torch.optim.SGD, *args: object, **more: object) -> object:
        gradients = [weights.grad for group in self.param_groups for weights in group["params"]]
        norms.append(sum(gradient.double().square().sum().item() for gradient in gradients) ** 0.5)
        return take_step(self, *args, **more)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    path = run(tiny(NoisyConfig, data, tmp_path / "run", accumulation=accumulation)).path
    logged = [line["gradient"] for line in read_log(path / "log.jsonl") if "loss" in line]
    assert logged == pytest.approx([sum(pair) / 2 for pair in zip(norms[::2], norms[1::2], strict=True)], rel=1e-5)


def test_processes_exchange_gradients_once_a_step(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, no_sync = [], Accelerator.no_sync
    monkeypatch.setattr(Accelerator, "no_sync", lambda *args: (alone.append(1), no_sync(*args))[1])
    run(tiny(NoisyConfig, data, tmp_path / "run", accumulation=4))
    assert len(alone) == 3 * STEPS


def test_gradients_are_found_without_a_walk_through_the_network(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Python, that would be a share of a small network's step on a GPU."""
    descend = Loop.descend

    def watched(loop: Loop, batches: list[Batch]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.delattr(nn.Module, "parameters")
            descend(loop, batches)

    monkeypatch.setattr(Loop, "descend", watched)
    run(tiny(SimCLRConfig, data, tmp_path / "run", epochs=1))


def test_the_last_step_is_logged_wherever_it_falls(data: Path, tmp_path: Path) -> None:
    lines = read_log(run(tiny(BYOLConfig, data, tmp_path / "run", log_every=4)).path / "log.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [4, 6]


@pytest.mark.parametrize(
    ("processes", "log_every", "saved"),
    [(1, 1, [8, 16, 24]), (1, 5000, [8, 16, 24]), (2, 5000, [10, 20]), (2, 4, [8, 16, 24])],
)
def test_the_clock_of_checkpoints_is_not_that_of_the_log(
    processes: int, log_every: int, saved: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of two minutes, and a checkpoint after more than fifteen; several processes ask seldom."""
    made: list[int] = []
    monkeypatch.setattr(due_module, "monotonic", lambda: 120.0 * len(made))
    monkeypatch.setattr(due_module, "world_size", lambda: processes)
    rule = Checkpoints(every_minutes=15)
    due, found = Due(tiny(BYOLConfig, Path("photos"), Path("run"), log_every=log_every, checkpoints=rule)), []
    for step in range(1, 25):
        made.append(step)
        if due.after(step):
            found.append(step)
            due.saved()
    assert found == saved


def test_methods_take_one_step_for_all_micro_batches(data: Path, tmp_path: Path) -> None:
    """Batch statistics are those of a micro-batch, so the numbers differ; the counters do not."""
    recipe = tiny(MoCoV2Config, data, tmp_path / "run", accumulation=2)
    path = run(recipe).path
    lines = [line for line in read_log(path / "log.jsonl") if "loss" in line]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert [line["lr"] for line in lines] == [recipe.lr(step - 1, 3) for step in (2, 4, 6)]
    assert state(path)["method/queue.pointer"].item() == STEPS * 8 % 16


def test_a_tracker_is_told(data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = run(tiny(MoCoV2Config, data, tmp_path / "run", trackers=("tensorboard",))).path
    events = EventAccumulator(str(path / "ssl-backbones")).Reload()
    lines = [line for line in read_log(path / "log.jsonl") if "loss" in line]
    for name in ("loss", "lr", "key_momentum"):
        told = [(event.step, event.value) for event in events.Scalars(name)]
        assert told == [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines]
    assert {"std", "rank", "knn", "images_per_second"} <= set(events.Tags()["scalars"])
    (settings,) = path.glob("ssl-backbones/*/hparams.yml")
    assert "optimizer.lr: 0.5" in settings.read_text()


def test_a_tracker_keeps_what_it_was_told_when_the_run_is_stopped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ended, finish = [], TensorBoardTracker.finish
    monkeypatch.setattr(TensorBoardTracker, "finish", lambda self: (ended.append(self), finish(self)))
    stop(tiny(MoCoV2Config, data, tmp_path / "run", trackers=("tensorboard",)), 4)
    assert len(ended) == 1
    events = EventAccumulator(str(tmp_path / "run" / "ssl-backbones")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4]


@pytest.fixture(scope="module")
def tracked(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The recipe of a run that nothing disturbed."""
    recipe = tiny(BYOLConfig, data, tmp_path_factory.mktemp("tracked") / "run", trackers=("tensorboard",))
    run(recipe)
    return recipe


@pytest.mark.parametrize("call", ["start", "log", "finish"])
def test_a_tracker_that_fails_changes_no_end(
    call: str, tracked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither of a run that is stopped, whose exit code is that of its signal, nor of one that goes to its end."""

    def broken(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    recipe = elsewhere(tracked, tmp_path / "run")
    monkeypatch.setattr(TensorBoardTracker, call, broken)
    with after(4, asked_to_stop), pytest.raises(Stopped, match="143"):
        run(recipe)
    run(recipe)
    warning = "warning: a tracker failed, and training goes on (ConnectionError: no route to host)"
    assert capsys.readouterr().out.count(warning) == 2
    assert outcome(recipe.folder) == outcome(tracked.folder)


SCHEDULES = {
    "cosine by step": ScheduleConfig(per="step"),
    "cosine by epoch": ScheduleConfig(per="epoch", warmup_epochs=1),
    "step": ScheduleConfig("step", milestones=(1,)),
    "poly": ScheduleConfig("poly"),
    "constant": ScheduleConfig("constant", warmup_epochs=1),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in ("step", "constant") else ()) for name in SCHEDULES]
)
def test_a_cut_run_is_the_beginning_of_the_whole(name: str, data: Path, tmp_path: Path) -> None:
    """Learning rate, momentum of the target and all that follows from them, to the last bit."""
    kept = Checkpoints(every_minutes=0, every_steps=4, keep=9)
    whole = tiny(BYOLConfig, data, tmp_path / "whole", schedule=SCHEDULES[name], checkpoints=kept, log_every=1)
    run(whole)
    shutil.rmtree(tmp_path / "whole" / "checkpoints" / folder_name(STEPS))
    cut = run(dataclasses.replace(elsewhere(whole, tmp_path / "cut"), max_steps=4)).path
    trained = [
        {name: tensor for name, tensor in state(path).items() if not name.startswith("last/")}  # the cut run's last
        for path in (cut, tmp_path / "whole")
    ]
    assert sha(trained[0]) == sha(trained[1])
    logs = [read_log(path / "log.jsonl") for path in (cut, tmp_path / "whole")]
    ours, theirs = ([line for line in lines if "loss" in line] for lines in logs)
    assert len(ours) == 4
    assert ours == theirs[:4]


def test_a_run_that_is_cut_where_it_is_measured_is_measured_once(data: Path, tmp_path: Path) -> None:
    monitoring = Monitoring(knn_every=1)
    recipe = tiny(BYOLConfig, data, tmp_path / "run", epochs=4, max_steps=6, monitoring=monitoring, log_every=1)
    folder = run(recipe)
    assert outcome(folder.path)["results"]["steps"] == 6
    measured = [line["step"] for line in read_log(folder.path / "log.jsonl") if "std" in line]
    assert measured == [0, 3, 6]


def test_a_queue_longer_than_the_data_is_refused_before_the_run_begins(data: Path, tmp_path: Path) -> None:
    recipe = tiny(MoCoV2Config, data, tmp_path / "run", {"queue_size": 19})
    with pytest.raises(UnfitError, match=r"queue_size is 19, but 26 images .* at most 18, .* mask 'own'"):
        run(recipe)
    assert not (tmp_path / "run").exists()
    run(tiny(MoCoV2Config, data, tmp_path / "run", {"queue_size": 99, "mask": "own"}))


@pytest.mark.parametrize("kind", [BYOLConfig, SimCLRConfig])
def test_what_accumulation_changes_is_said(
    kind: type[MethodConfig], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny(kind, data, tmp_path / "run", accumulation=2, max_steps=1))
    said = capsys.readouterr().out
    assert ("compares the images of a batch, and accumulation scores 4 at a time" in said) == (kind is SimCLRConfig)
