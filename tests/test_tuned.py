"""The backbone that a transfer leaves is the trained one, prepared and licensed as its start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import drawn_objects
import labelled_runs
import numpy as np
import pytest
import scenes
import test_detect
import test_segment
import timm
import torch
from labelled_runs import divided, outcome, small
from runs import after, killed, state
from scripts import script
from two_processes import TORCHRUN

import ssl_backbones
from ssl_backbones.commands import main
from ssl_backbones.evaluate.model import open_model
from ssl_backbones.evaluate.protocols import finetune, linear, semi
from ssl_backbones.evaluate.tuned_backbone import fill
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.models.backbone import weights_sha256
from ssl_backbones.registry.errors import UnknownModelError

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
PROTOCOLS = {"finetune": (finetune, "patch", 16), "semi": (semi, "lewel_10pct", 16)}
SIZES = {"finetune": 16, "semi": 16, "segment": 24, "detect": 80}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone with a licence, an origin and a preparation of its own."""
    torch.manual_seed(9)
    return save_backbone(
        ssl_backbones.create_model("resnet8", num_classes=0),
        tmp_path_factory.mktemp("private") / "begun",
        "resnet8",
        mean=MEAN,
        std=STD,
        interpolation="bicubic",
        crop_pct=1.0,
        license="cc-by-nc-4.0",
        origin_url="https://example.org/weights",
    )


def transfer(task: str, start: Path | str, path: Path, patch: pytest.MonkeyPatch, init: str = "") -> Path:
    """The folder of a transfer of a few steps."""
    out = path / task
    words = ["--init", init] if init else []
    if task == "segment":
        test_segment.run(scenes.voc_folder(path / "voc"), out, *words, model=str(start), random=False)
    elif task == "detect":
        patch.setattr(test_detect, "QUICK", [word for word in test_detect.QUICK if word != "--random"])
        test_detect.run(patch, str(start), drawn_objects.parquet(path / "drawn"), out, *test_detect.SHORT, *words)
    else:
        protocol, preset, size = PROTOCOLS[task]
        few: dict[str, Any] = {"share": 1.0} if task == "semi" else {}
        begun = {"model": str(start), "random": False, "init": init}
        run = small(protocol, preset, divided(path / "data"), out, size=size, **begun, **few)
        labelled_runs.run(protocol, run)
    return out


@pytest.fixture(scope="module")
def transferred(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a task's transfer from that backbone, made once."""

    @cache
    def made(task: str) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            return transfer(task, start, tmp_path_factory.mktemp("own"), patch)

    return made


@pytest.mark.parametrize("task", SIZES)
def test_a_transfer_leaves_its_backbone(task: str, start: Path, transferred: Callable[[str], Path]) -> None:
    out = transferred(task)
    model = timm.create_model(f"local-dir:{out / 'backbone'}", pretrained=True)
    trained = {name: value for name, value in state(out).items() if name.startswith("method/backbone.")}
    for name, value in model.state_dict().items():
        assert torch.equal(value, trained[f"method/backbone.{name}"]), name
    opened, begun = open_model(out / "backbone"), open_model(start)
    assert opened.weights_sha256 != begun.weights_sha256
    assert (opened.crop.mean, opened.crop.std, opened.crop.size) == (MEAN, STD, SIZES[task])
    assert (opened.crop.interpolation, opened.crop.crop_pct) == ("bicubic", 1.0)
    assert open_model(out).weights_sha256 == opened.weights_sha256
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    told = {"folder": "backbone", "weights_sha256": opened.weights_sha256, "as_after": "the last step"}
    assert results["backbone"] == told
    config = (out / "backbone" / "config.json").read_text()
    cfg = json.loads(config)["pretrained_cfg"]
    assert (cfg["license"], cfg["origin_url"]) == ("cc-by-nc-4.0", "https://example.org/weights")
    assert f"trained with labels: {results['protocol']}, {results['steps']} steps" in cfg["description"]
    assert "begun with begun" in cfg["description"]
    assert str(out.parent) not in config
    assert str(start.parent) not in config
    assert "then trained with labels" in str(ssl_backbones.describe(out / "backbone"))


@pytest.mark.parametrize("task", SIZES)
def test_given_weights_begin_a_transfer_as_the_models_own_do(
    task: str, start: Path, transferred: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by --init, as a folder and as a file, the same weights lead to the same bits, and their origin is told."""
    weights = open_model(start).network.state_dict()
    torch.save({"model": {f"module.{key}": value for key, value in weights.items()}}, tmp_path / "weights.pth")
    outs = [
        transferred(task),
        transfer(task, "resnet8", tmp_path / "folder", monkeypatch, str(start)),
        transfer(task, "resnet8_byol", tmp_path / "file", monkeypatch, str(tmp_path / "weights.pth")),
    ]
    own, folder, file = (json.loads((out / "results.json").read_text()) for out in outs)
    assert own["numbers"] == folder["numbers"]
    assert own["backbone"] == folder["backbone"]
    assert own["start"] == folder["start"]
    assert (folder["start"]["licence"], folder["start"]["sha256"]) == ("cc-by-nc-4.0", own["weights_sha256"])
    assert (file["start"]["licence"], file["start"]["sha256"]) == (None, own["weights_sha256"])
    assert file["weights_sha256"] == own["weights_sha256"]
    recipe = json.loads((tmp_path / "folder" / task / "recipe.json").read_text())
    assert (recipe["init"], recipe["start"]) == (str(start), folder["start"])
    cfg = json.loads((tmp_path / "folder" / task / "backbone" / "config.json").read_text())["pretrained_cfg"]
    assert (tuple(cfg["mean"]), tuple(cfg["std"]), cfg["license"]) == (MEAN, STD, "cc-by-nc-4.0")


def test_a_start_of_another_network_or_beside_random_weights_is_refused(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(divided(tmp_path / "data"))
    words = ["--data", data, "--out", str(tmp_path / "out"), "--init", str(start), "--batch_size", "4"]
    assert main(["evaluate", "finetune", "resnet20", *words]) == 2
    assert "begun is a resnet8 and a resnet20 is to be trained" in capsys.readouterr().err
    assert main(["evaluate", "finetune", "resnet8", "--random", *words]) == 2
    assert "left out where weights are --random" in capsys.readouterr().err


def test_random_weights_have_no_licence_and_a_frozen_backbone_is_not_left(tmp_path: Path) -> None:
    data = divided(tmp_path / "data")
    labelled_runs.run(finetune, small(finetune, "patch", data, tmp_path / "tuned"))
    cfg = json.loads((tmp_path / "tuned" / "backbone" / "config.json").read_text())["pretrained_cfg"]
    assert "license" not in cfg
    assert "begun with random weights" in cfg["description"]
    labelled_runs.run(linear, small(linear, "lewel_b", data, tmp_path / "probe"))
    assert not (tmp_path / "probe" / "backbone").exists()
    assert "backbone" not in labelled_runs.results_of(tmp_path / "probe")


def test_a_start_that_is_gone_at_the_end_can_be_put_back(start: Path, tmp_path: Path) -> None:
    data = divided(tmp_path / "data")
    begun = Path(shutil.copytree(start, tmp_path / "begun"))

    def tuned(name: str) -> Any:
        return small(finetune, "patch", data, tmp_path / name, model=str(begun), random=False)

    expected = labelled_runs.run(finetune, tuned("whole"))
    away = tmp_path / "away"
    with after(8, lambda: os.rename(begun, away)), pytest.raises(UnknownModelError, match="no folder, is called"):
        labelled_runs.run(finetune, tuned("out"))
    assert not (tmp_path / "out" / "results.json").exists()
    with pytest.raises(UnknownModelError, match="no folder, is called"):
        labelled_runs.run(finetune, tuned("out"))
    away.rename(begun)
    with after(1, killed):  # nothing is trained again
        found = labelled_runs.run(finetune, tuned("out"))
    assert found["backbone"] == expected["backbone"]
    assert outcome(tmp_path / "out")["state"] == outcome(tmp_path / "whole")["state"]
    assert (tmp_path / "out" / "backbone" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "backbone" / "model.safetensors"
    ).read_bytes()


def test_a_tuned_folder_is_shown_and_embedded_and_publish_says_how_to_share_it(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = divided(tmp_path / "data"), tmp_path / "tuned"
    rates = {"learning_rates": (0.001, 0.01), "choose_on": "validation"}
    labelled_runs.run(finetune, small(finetune, "patch", data, out, model=str(start), random=False, **rates))
    folder = str(out)
    script("visualize", [folder, "--data", str(data), "--out", str(tmp_path / "page"), "--map", "pca", "--count", "1"])
    page = (tmp_path / "page" / "index.html").read_text()
    assert "The training with labels" in page
    assert "Learning rates by top-1 on the validation images, which the results are of too: 0.001 (" in page
    assert str(tmp_path) not in page
    script("embed", [folder, "--data", str(data), "--out", str(tmp_path / "features.npy"), "--workers", "0"])
    assert np.load(tmp_path / "features.npy").shape == (36, 64)
    capsys.readouterr()
    assert main(["describe", folder]) == 0
    assert "then trained with labels: finetune (patch)" in capsys.readouterr().out
    assert main(["publish", folder, "--repo", "me/tuned", "--dry_run", "--out", str(tmp_path / "look")]) == 2
    assert f"by `hf upload ORG/NAME {out / 'backbone'}`" in capsys.readouterr().err
    assert not (tmp_path / "look").exists()


@pytest.mark.slow
def test_a_detectors_backbone_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*test_detect.SHORT, "--head", "faster_c4", "--size", "64", "--iterations", "2"]
    words += ["--schedule.milestone_steps", "1"]
    test_detect.run(monkeypatch, "resnet18_byol", drawn_objects.parquet(tmp_path / "drawn"), tmp_path / "out", *words)
    for format in ("torchvision", "detectron2", "mmdet", "mmseg"):
        out = tmp_path / format
        assert main(["export", str(tmp_path / "out"), "--format", format, "--out", str(out)]) == 0
        assert out.stat().st_size > 4e7


@pytest.mark.slow
def test_two_processes_leave_one_backbone(start: Path, tmp_path: Path) -> None:
    data = divided(tmp_path / "data")
    options = ["--size", "16", "--epochs", "2", "--batch_size", "8", "--workers", "0", "--data", str(data)]
    rates = ["--learning_rates", "0.001", "0.01", "--choice_share", "0.4"]
    program = [*TORCHRUN, "-m", "ssl_backbones", "evaluate", "finetune", str(start), *options, *rates]
    program += ["--out", str(tmp_path / "two")]
    ended = subprocess.run(program, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    two = labelled_runs.results_of(tmp_path / "two")
    assert two["compute"]["processes"] == 2
    assert [tried["lr"] for tried in two["learning_rates"]["tried"]] == [0.001, 0.01]
    assert open_model(tmp_path / "two").weights_sha256 == two["backbone"]["weights_sha256"]
    assert main(["evaluate", "finetune", str(start), *options, *rates, "--out", str(tmp_path / "one")]) == 0
    one = labelled_runs.results_of(tmp_path / "one")
    for tried, other in zip(one["learning_rates"]["tried"], two["learning_rates"]["tried"], strict=True):
        assert tried["value"] == pytest.approx(other["value"], abs=0.2)
    ours, theirs = (open_model(tmp_path / name).network.state_dict() for name in ("one", "two"))
    if one["learning_rates"]["chosen"] == two["learning_rates"]["chosen"]:
        torch.testing.assert_close(ours["conv1.weight"], theirs["conv1.weight"], rtol=0, atol=0.05)


@pytest.mark.parametrize(("model", "rest"), [("resnet8", 0), ("resnet18_byol", 0), ("convnext_atto", 2)])
def test_maps_fill_the_whole_network_under_whatever_names(model: str, rest: int) -> None:
    maps, whole = (
        ssl_backbones.create_model(model, features_only=True),
        ssl_backbones.create_model(model, num_classes=0),
    )
    with torch.no_grad():
        for value in maps.state_dict().values():
            value.fill_(3)
    before = weights_sha256(whole)
    lacking = fill(whole, maps)
    assert len(lacking) == rest
    assert weights_sha256(whole) != before
    for name, value in whole.state_dict().items():
        assert bool((value == 3).all()) == (name not in lacking), name
