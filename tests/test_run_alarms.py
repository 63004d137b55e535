"""The alarms of a run that learns nothing, and their silence in a healthy one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runs import image_folder, run, stop, tiny
from whole_runs import data

from ssl_backbones.methods import BYOLConfig, MoCoV2Config
from ssl_backbones.recipes.settings import OptimizerConfig
from ssl_backbones.runs.log import read_log
from ssl_backbones.train import alarm
from ssl_backbones.train.loop import Loop

__all__ = ["data"]


def test_a_contrastive_loss_at_chance_is_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alarm, "SHORTEST", 4)
    frozen = OptimizerConfig("sgd", 1e-12, "absolute", weight_decay=0.0)
    recipe = tiny(MoCoV2Config, data, tmp_path / "run", {"temperature": 5.0}, optimizer=frozen, epochs=6, log_every=1)
    stop(recipe, 10)
    run(recipe)
    said = capsys.readouterr().out
    assert said.count("The loss has been at chance for") == 1
    assert "it learns nothing. Likely causes: a learning rate" in said


def test_collapsed_features_are_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alarm, "SHORTEST", 4)
    descend = Loop.descend

    def collapse(loop: Loop, batches: Any) -> None:
        descend(loop, batches)
        for name, weights in loop.method.backbone.named_parameters():
            if name.endswith("weight"):
                weights.data.mul_(0.5)

    monkeypatch.setattr(Loop, "descend", collapse)
    run(tiny(BYOLConfig, data, tmp_path / "run", epochs=8))
    said = capsys.readouterr().out
    began = read_log(tmp_path / "run" / "log.jsonl")[0]
    assert said.count("The features have been collapsed for") == 1
    assert f"effective rank 1, at first {began['rank']:.3g})" in said


def test_a_healthy_run_hears_no_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alarm, "SHORTEST", 8)
    more = image_folder(tmp_path / "data", 64)
    choices = {"momentum": 0.99, "queue_size": 32}
    healthy = OptimizerConfig("sgd", 5.0)
    run(tiny(MoCoV2Config, more, tmp_path / "run", choices, optimizer=healthy, epochs=5, log_every=1))
    said = capsys.readouterr().out
    assert "chance for" not in said
    assert "collapsed" not in said
