"""The backbone that a transfer leaves is the trained one, prepared and licensed as its start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import drawn_objects
import labelled_runs
import pytest
import scenes
import test_detect
import test_segment
import timm
import torch
from labelled_runs import divided, small
from runs import state

import ssl_backbones
from ssl_backbones.evaluate.model import open_model
from ssl_backbones.evaluate.protocols import finetune, linear, semi
from ssl_backbones.evaluate.tuned import fill
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.models.backbone import weights_sha256

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


def transfer(task: str, start: Path, path: Path, patch: pytest.MonkeyPatch) -> Path:
    """The folder of a transfer of a few steps."""
    out = path / task
    if task == "segment":
        test_segment.run(scenes.voc_folder(path / "voc"), out, model=str(start), random=False)
    elif task == "detect":
        patch.setattr(test_detect, "QUICK", [word for word in test_detect.QUICK if word != "--random"])
        test_detect.run(patch, str(start), drawn_objects.parquet(path / "drawn"), out, *test_detect.SHORT)
    else:
        protocol, preset, size = PROTOCOLS[task]
        few = {"share": 1.0} if task == "semi" else {}
        run = small(protocol, preset, divided(path / "data"), out, size=size, model=str(start), random=False, **few)
        labelled_runs.run(protocol, run)
    return out


@pytest.mark.parametrize("task", SIZES)
def test_a_transfer_leaves_its_backbone(
    task: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = transfer(task, start, tmp_path, monkeypatch)
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
    assert str(tmp_path) not in config
    assert str(start.parent) not in config
    assert "then trained with labels" in str(ssl_backbones.describe(out / "backbone"))


def test_random_weights_have_no_licence_and_a_frozen_backbone_is_not_left(tmp_path: Path) -> None:
    data = divided(tmp_path / "data")
    labelled_runs.run(finetune, small(finetune, "patch", data, tmp_path / "tuned"))
    cfg = json.loads((tmp_path / "tuned" / "backbone" / "config.json").read_text())["pretrained_cfg"]
    assert "license" not in cfg
    assert "begun with random weights" in cfg["description"]
    labelled_runs.run(linear, small(linear, "lewel_b", data, tmp_path / "probe"))
    assert not (tmp_path / "probe" / "backbone").exists()
    assert "backbone" not in labelled_runs.results_of(tmp_path / "probe")


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
