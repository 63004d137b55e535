"""Stopped or killed at any step and started again, a run ends as one that never was; or says why it cannot."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest
import runs
import torch
from accelerate import Accelerator
from runs import STEPS, asked_to_stop, elsewhere, killed, outcome, run, run_whole, stop, tiny
from whole_runs import Whole, contents, cut, data, noisy, watched

from ssl_backbones import ends
from ssl_backbones.data.blocks import Keeping
from ssl_backbones.methods import BYOLConfig, LewelBConfig, LewelMConfig, MethodConfig
from ssl_backbones.recipes.recipe import FREE
from ssl_backbones.recipes.settings import Checkpoints, Monitoring, OptimizerConfig
from ssl_backbones.refusal import Refusal
from ssl_backbones.runs import checkpoint
from ssl_backbones.runs.log import read_log
from ssl_backbones.runs.run_folder import RunFolderError
from ssl_backbones.train import ending
from ssl_backbones.train import prepare as prepare_module
from ssl_backbones.train import pretrain as pretrain_module
from ssl_backbones.train.bench import Bench
from ssl_backbones.train.cost import tells_pace
from ssl_backbones.train.judge import Measured
from ssl_backbones.train.monitor import Monitor
from ssl_backbones.train.precision import Compute
from ssl_backbones.train.processes import Stopped

__all__ = ["cut", "data", "noisy"]


@pytest.fixture(scope="module")
def lewel_m(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Whole, Path]:
    """A run that nothing disturbed, and the folder of one that was stopped after its fifth step."""
    path = tmp_path_factory.mktemp("lewel_m")
    whole = watched(tiny(LewelMConfig, data, path / "run"))
    stop(elsewhere(whole.recipe, path / "cut"), 5)
    return whole, path / "cut"


@pytest.mark.parametrize(
    ("step", "happens"),
    [(2, asked_to_stop), (3, asked_to_stop), (STEPS, asked_to_stop), (2, killed), (4, killed), (STEPS, killed)],
)
def test_it_goes_on_from_any_step(step: int, happens: Callable[[], None], noisy: Whole, tmp_path: Path) -> None:
    recipe = dataclasses.replace(elsewhere(noisy.recipe, tmp_path / "run"), checkpoints=Checkpoints(2, 0))
    stop(recipe, step, happens)
    run(recipe)
    assert outcome(tmp_path / "run") == outcome(noisy.path)


@pytest.mark.parametrize("measurement", [0, 1, 2])
def test_a_signal_while_it_measures_ends_the_run_with_all_saved(
    measurement: int, noisy: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first step, after the first epoch, and after the last step, when the comparison is left."""
    judge, judged = Monitor.judge, []

    def interrupted(monitor: Monitor, bench: Bench) -> Measured:
        if len(judged) == measurement:
            asked_to_stop()
        judged.append(measurement)
        return judge(monitor, bench)

    recipe = elsewhere(noisy.recipe, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "judge", interrupted)
        with pytest.raises(Stopped, match="143"):
            run(recipe)
    assert len(judged) == measurement + 1
    assert f"Stopped after step {(1, 3, STEPS)[measurement]} of {STEPS}" in capsys.readouterr().out
    run(recipe)
    assert outcome(tmp_path / "run") == outcome(noisy.path)


def test_it_goes_on_after_it_was_killed_while_leaving(
    noisy: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = elsewhere(noisy.recipe, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(pretrain_module, "save_results", lambda *_: killed())
        with pytest.raises(runs.Killed):
            run(recipe)
    assert checkpoint.load_latest(tmp_path / "run" / "checkpoints").step == STEPS
    run(recipe)
    assert outcome(tmp_path / "run") == outcome(noisy.path)


def test_the_forecast_of_a_run_that_goes_on_follows_no_first_pass(
    cut: Path, noisy: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(cut, tmp_path / "run")
    monkeypatch.setattr(prepare_module, "try_step", lambda *_: 1e6)
    speed = tmp_path / "run" / "speed.jsonl"
    kept = speed.read_bytes()
    speed.write_bytes(b"".join(line for line in kept.splitlines(keepends=True) if b"images_per_second" not in line))
    run(elsewhere(noisy.recipe, tmp_path / "run"))
    assert "Forecast: memory " in capsys.readouterr().out
    shutil.rmtree(tmp_path / "run")
    shutil.copytree(cut, tmp_path / "run")
    rates = [line["images_per_second"] for line in read_log(speed) if "images_per_second" in line]
    seconds = noisy.recipe.batch_size / median(rates[-5:])
    run(elsewhere(noisy.recipe, tmp_path / "run"))
    assert f"Forecast: about {seconds:.2g} s a step, " in capsys.readouterr().out
    run(elsewhere(noisy.recipe, tmp_path / "new"))
    assert re.search(r"Forecast: about \S+e\+06 s a step, ", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("device", "step", "tried", "known"),
    [
        ("cuda", 0, {}, False),
        ("cuda", 0, {"fp32 contiguous": 1.0}, True),
        ("cuda", 4, {}, False),
        ("cpu", 4, {}, False),
    ],
)
def test_the_pace_is_told_where_it_is_known(device: str, step: int, tried: dict[str, float], known: bool) -> None:
    accelerator = SimpleNamespace(device=torch.device(device))
    loop: Any = SimpleNamespace(compute=Compute("fp32", "contiguous", tried), step=step, accelerator=accelerator)
    assert tells_pace(loop) == known


FREELY: dict[str, Any] = {
    "monitoring": Monitoring(knn_every=0),
    "checkpoints": Checkpoints(every_steps=1, every_minutes=0),
    "unreadable_share": 0.5,
    "log_every": 3,
    "trackers": ("tensorboard",),
    "workers": 1,
    "compile": True,
    "grad_checkpointing": True,
    "max_pixels": 10**6,
    "cache": "cache",
    "cache_limit": 2.0,
    "blocks": Keeping(limit=4.0),
    "verify": True,
}
"""Another value for each field that may change when a run goes on."""
ELSEWHERE = {"promise", "derived", "data", "validation", "out", "start", "resident", "measured"}
"""Those of no effect on a step, those that are held to what they name, and one for another engine alone."""


@pytest.mark.parametrize("name", sorted(FREE - ELSEWHERE))
def test_a_field_that_changes_on_the_way_changes_no_bit_or_is_said(
    name: str,
    cut: Path,
    noisy: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(cut, tmp_path / "run")
    recipe = elsewhere(noisy.recipe, tmp_path / "run")
    before, new = getattr(recipe, name), str(tmp_path / "cache") if name == "cache" else FREELY[name]
    monkeypatch.setattr(torch.nn.Module, "compile", lambda method: None)
    run(dataclasses.replace(recipe, **{name: new}))
    said = f"may not be bit-identical to a run never stopped: {name} {before} -> {new}" in capsys.readouterr().out
    ended = [
        {key: part for key, part in runs.state(path).items() if key.startswith(("method", "optimizer"))}
        for path in (tmp_path / "run", noisy.path)
    ]
    assert said == (name in ("compile", "max_pixels"))
    assert said or runs.sha(ended[0]) == runs.sha(ended[1])


GONE = {
    "a reader": (1, "DataLoader worker (pid 7) is killed by signal: Killed."),
    "a rank": (2, "Connection closed by peer [127.0.0.1]:4242"),
}


@pytest.mark.parametrize("gone", GONE)
def test_a_process_that_is_lost_at_the_very_end_costs_no_result(
    gone: str, noisy: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, (processes, words) = elsewhere(noisy.recipe, tmp_path / "run"), GONE[gone]

    def lost(*_: object) -> None:
        raise RuntimeError(words)

    with monkeypatch.context() as patch:
        patch.setattr(ending, "beside_baselines", lost)
        patch.setattr(ends, "launched", lambda: processes)
        with pytest.raises(Refusal, match=r"gone.* the same command goes on from there"):
            run_whole(recipe)
    assert not (tmp_path / "run" / "results.json").exists()
    run(recipe)
    assert outcome(tmp_path / "run") == outcome(noisy.path)


LOST: dict[str, Callable[[Path], object]] = {
    "half its results": lambda run: os.truncate(run / "results.json", 100),
    "all its results": lambda run: os.truncate(run / "results.json", 0),
    "its weights": lambda run: (run / "backbone" / "model.safetensors").unlink(),
    "its backbone": lambda run: shutil.rmtree(run / "backbone"),
}


@pytest.mark.parametrize("lost", LOST)
def test_a_finished_run_that_lost_a_part_makes_it_anew(
    lost: str, noisy: Whole, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(noisy.path, tmp_path / "run")
    LOST[lost](tmp_path / "run")
    run(elsewhere(noisy.recipe, tmp_path / "run"))
    assert outcome(tmp_path / "run") == outcome(noisy.path)
    assert "holds a finished run, but its" in caplog.text
    assert "made anew" in caplog.text
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    LOST[lost](tmp_path / "run")
    left = contents(tmp_path / "run")
    with pytest.raises(RunFolderError, match="and no checkpoint to make it anew from: restore it"):
        run(elsewhere(noisy.recipe, tmp_path / "run"))
    assert contents(tmp_path / "run") == left


def test_it_goes_on_as_often_as_one_likes(noisy: Whole, tmp_path: Path) -> None:
    recipe = elsewhere(noisy.recipe, tmp_path / "run")
    for step in range(1, STEPS):
        stop(recipe, step)
    run(recipe)
    assert outcome(tmp_path / "run") == outcome(noisy.path)


def test_the_number_of_workers_changes_nothing(noisy: Whole, tmp_path: Path) -> None:
    """Two workers and then one make what none made."""
    recipe = elsewhere(noisy.recipe, tmp_path / "run")
    stop(dataclasses.replace(recipe, workers=2), 2)
    run(dataclasses.replace(recipe, workers=1))
    assert outcome(tmp_path / "run") == outcome(noisy.path)


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": OptimizerConfig("lars", 1.0, exclude_norm_and_bias=True), "layout": "channels_last"}
        | {"accumulation": 2, "log_every": 5},
        {"optimizer": OptimizerConfig("adamw", 0.01, "absolute"), "precision": "bf16"},
        {"precision": "auto", "layout": "auto"},
    ],
    ids=["lars and accumulation", "adamw and bf16", "auto"],
)
def test_it_goes_on_however_it_is_computed(fields: dict[str, Any], data: Path, tmp_path: Path) -> None:
    recipe = tiny(LewelBConfig, data, tmp_path / "whole", **fields)
    if recipe.precision == "auto":  # one choice for both runs: another one would be another run
        stop(recipe, 1)
        shutil.copytree(tmp_path / "whole", tmp_path / "run")
    run(recipe)
    stop(elsewhere(recipe, tmp_path / "run"), 4)
    run(elsewhere(recipe, tmp_path / "run"))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_gradient_scaler_goes_on_with_its_scale(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under fp16, which no CPU trains in; a scale of two's powers changes no number."""
    accelerator_of = prepare_module.accelerator_of

    def scaling(*args: Any) -> Accelerator:
        accelerator = accelerator_of(*args)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
        return accelerator

    monkeypatch.setattr(prepare_module, "accelerator_of", scaling)
    recipe = tiny(LewelBConfig, data, tmp_path / "whole", epochs=4)
    run(recipe)
    stop(elsewhere(recipe, tmp_path / "run"), 8)
    scaler = checkpoint.load_latest(tmp_path / "run" / "checkpoints").scalars["scaler"]
    assert (scaler["scale"], scaler["_growth_tracker"]) == (2.0**12, 2)
    run(elsewhere(recipe, tmp_path / "run"))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    ends = (checkpoint.load_latest(tmp_path / name / "checkpoints").scalars["scaler"] for name in ("run", "whole"))
    assert next(ends) == next(ends)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("kind", [BYOLConfig, LewelMConfig], ids=lambda kind: kind.__name__)
def test_a_compiled_run_goes_on_where_it_stopped(kind: type[MethodConfig], data: Path, tmp_path: Path) -> None:
    recipe = tiny(kind, data, tmp_path / "whole", precision="bf16", compile=True)
    run(recipe)
    stop(elsewhere(recipe, tmp_path / "run"), 4)
    run(elsewhere(recipe, tmp_path / "run"))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


@pytest.mark.parametrize(
    "forgotten",
    ["method/queue.keys", "method/queue.pointer", "method/key_encoder", "method/backbone", "optimizer/", "own/window"],
)
def test_whatever_is_not_restored_is_missed(
    forgotten: str, lewel_m: tuple[Whole, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = lewel_m
    recipe = elsewhere(whole.recipe, shutil.copytree(cut, tmp_path / "run"))
    part, _, prefix = forgotten.partition("/")

    def forgetful(*args: Any, **more: Any) -> checkpoint.Checkpoint | None:
        saved = checkpoint.load_latest(*args, **more)
        assert saved is not None
        named = saved.own if part == "own" else saved.tensors[part]
        gone = [name for name in named if name.startswith(prefix)]
        assert gone
        named.update({name: torch.zeros_like(named[name]) for name in gone})
        return saved

    monkeypatch.setattr(prepare_module, "load_latest", forgetful)
    run(recipe)
    assert outcome(tmp_path / "run") != outcome(whole.path)


def test_a_stop_is_announced_and_has_its_exit_code(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny(BYOLConfig, data, tmp_path / "run")
    before = signal.getsignal(signal.SIGTERM)
    for number, code, step in ((signal.SIGTERM, 143, 2), (signal.SIGINT, 130, 3), (signal.SIGUSR1, 143, 4)):
        with runs.after(step, lambda number=number: signal.raise_signal(number)), pytest.raises(SystemExit) as end:
            run(recipe)
        assert end.value.code == code
        assert f"Stopped after step {step} of {STEPS}; the same command goes on" in capsys.readouterr().out
        assert signal.getsignal(signal.SIGTERM) is before
    run(recipe)
    assert f"Going on after step 4 of {STEPS}." in capsys.readouterr().out
