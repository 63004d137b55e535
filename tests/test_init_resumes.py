"""A run that began with given weights goes on: without them, and never with others under their name."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import asked_to_stop, killed, outcome, run, run_whole, stop, tiny
from unusual_start import SHIPPED, folder, network
from whole_runs import data

from ssl_backbones.hub.export import save_backbone
from ssl_backbones.methods import BYOLConfig
from ssl_backbones.models.backbone import weights_sha256
from ssl_backbones.recipes.settings import Monitoring
from ssl_backbones.runs import checkpoint

__all__ = ["data", "folder"]


def test_a_run_goes_on_bit_identical_without_its_start(data: Path, folder: Path, tmp_path: Path):
    start = tmp_path / "start"
    shutil.copytree(folder, start)
    whole = tiny(BYOLConfig, data, tmp_path / "whole", init=str(start))
    run_whole(whole)
    cut = dataclasses.replace(whole, out=str(tmp_path / "cut"))
    stop(cut, 1)
    shutil.rmtree(start)
    stop(cut, 4)
    run_whole(cut)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    found, wanted = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("cut", "whole"))
    compared = wanted["baselines"]["networks"]
    lost = next(network for network in compared if network["name"].startswith("its start"))
    compared.remove(lost)
    assert found["baselines"] == wanted["baselines"]
    assert found["verdict"] == [words for words in wanted["verdict"] if lost["name"] not in words]


@pytest.mark.parametrize(("engine", "taken"), [("auto", 2), ("pillow", 1)])
def test_weights_before_the_first_step_are_those_that_the_results_name(
    engine: Any, taken: int, data: Path, tmp_path: Path
):
    """Another file lies there by now, which is opened where the command leaves fields open."""
    recipe = tiny(BYOLConfig, data, tmp_path / "run", init=str(tmp_path / "start"), engine=engine)
    save_backbone(network(1), tmp_path / "start", "resnet8")
    stop(recipe, 1, killed)
    shutil.rmtree(tmp_path / "start")
    save_backbone(network(2), tmp_path / "start", "resnet8")
    stop(recipe, 1, killed)
    named = json.loads((tmp_path / "run" / "recipe.json").read_text())["start"]["sha256"]
    saved = checkpoint.load_latest(tmp_path / "run" / "checkpoints")
    assert saved is not None
    assert saved.step == 0
    for name, value in network(taken).state_dict().items():
        torch.testing.assert_close(saved.tensors["method"][f"backbone.{name}"], value, rtol=0, atol=0)
    assert named == weights_sha256(network(taken))


@pytest.mark.parametrize("name", ["measured", "start"])
def test_what_the_first_weights_follow_from_is_free_once_a_step_is_made(
    name: str, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    recipe = tiny(BYOLConfig, data, tmp_path / "run", monitoring=Monitoring(knn_every=0))
    for step in (1, 2):
        stop(recipe, step, killed if step == 1 else asked_to_stop)
        file = tmp_path / "run" / "recipe.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {name: {"mean": [0.5], "std": [0.5]}}))
    run(recipe)
    assert [f"begun anew ({name}" in line for line in caplog.messages] == [True]


def test_a_finished_run_needs_no_start(data: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    start = tmp_path / "start"
    shutil.copytree(folder, start)
    recipe = tiny(BYOLConfig, data, tmp_path / "run", init=str(start))
    run(recipe)
    shutil.rmtree(start)
    run(recipe)
    assert "holds the finished run" in capsys.readouterr().out


def test_a_run_does_not_go_on_with_another_start(data: Path, folder: Path, tmp_path: Path):
    recipe = tiny(BYOLConfig, data, tmp_path / "run", init=str(folder))
    stop(recipe, 4)
    for other in ("", SHIPPED):
        with pytest.raises(RuntimeError, match=r"holds the run of another recipe \(init is"):
            run(dataclasses.replace(recipe, init=other))


def test_another_question_on_resuming_is_asked_of_the_start_again(data: Path, folder: Path, tmp_path: Path):
    start = tmp_path / "start"
    shutil.copytree(folder, start)
    recipe = tiny(BYOLConfig, data, tmp_path / "run", init=str(start))
    stop(recipe, 4)
    asked = dataclasses.replace(recipe, monitoring=dataclasses.replace(recipe.monitoring, k=5))
    shutil.move(start, tmp_path / "away")
    with pytest.raises(ValueError, match="start"):
        run(asked)
    shutil.move(tmp_path / "away", start)
    run(asked)
    whole = dataclasses.replace(asked, out=str(tmp_path / "whole"))
    run(whole)
    numbers = [json.loads((tmp_path / name / "results.json").read_text())["numbers"] for name in ("run", "whole")]
    assert numbers[0] == numbers[1]
