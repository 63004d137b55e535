"""Real pretrained weights as starts: slow, and only where the tool that fetches them is at hand."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from conftest import ROOT
from runs import run, tiny

from ssl_backbones.catalogue.start import StartError, open_start
from ssl_backbones.methods import BYOLConfig, MoCoV2Config
from ssl_backbones.train.beginning import begin
from ssl_backbones.train.pretrain import build

TOOL = ROOT.parent / "shared" / "tools" / "teachers.py"
KEPT = ROOT.parent.parent / "teachers"
"""The folder that the tool may have written to already."""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if (KEPT / "efficientnet_lite0" / "config.json").exists():
        return KEPT
    if not TOOL.exists():
        pytest.skip("nothing here makes the networks")
    out = tmp_path_factory.mktemp("teachers")
    if subprocess.run([sys.executable, str(TOOL), str(out)], check=False).returncode:
        pytest.skip("the networks cannot be fetched here")
    return out


def test_an_efficientnet_of_imagenet_is_gone_on_with(teachers: Path, tmp_path: Path):
    """Its features tell garments apart better than random ones before the first step, and the card claims nothing."""
    start = teachers / "efficientnet_lite0"
    recipe = tiny(
        BYOLConfig,
        ROOT / "training" / "sample_photos",
        tmp_path / "run",
        model="tf_efficientnet_lite0_byol",
        init=str(start),
        size=64,
        epochs=1,
        batch_size=64,
        max_steps=2,
        log_every=1,
    )
    begun = build(begin(recipe))
    theirs = timm.create_model(f"local-dir:{start}", pretrained=True, num_classes=0)
    for part in (begun.backbone, begun.target.backbone):
        assert all(torch.equal(part.state_dict()[key], value) for key, value in theirs.state_dict().items())
    run(recipe)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    numbers = results["numbers"]
    assert numbers["knn before"]["low"] > numbers["knn random"]["high"]
    assert (results["start"]["licence"], results["start"]["labels"]) == ("apache-2.0", "classes")
    assert results["start"]["mean"] == [0.5, 0.5, 0.5]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "self-supervised" not in card
    assert "from weights trained with labels" in card
    config = json.loads((tmp_path / "run" / "backbone" / "config.json").read_text())["pretrained_cfg"]
    assert (config["mean"], config["interpolation"]) == ([0.5] * 3, "bicubic")


def test_a_transformer_is_no_start_of_a_convolutional_network(teachers: Path, tmp_path: Path):
    with pytest.raises(StartError, match="dinov2_small is a vit_small_patch14_dinov2 and a resnet18 is to be trained"):
        open_start(str(teachers / "dinov2_small"), "resnet18")
    recipe = tiny(MoCoV2Config, tmp_path, tmp_path / "run", init=str(teachers / "dinov2_small"))
    with pytest.raises(StartError):
        begin(dataclasses.replace(recipe, model="resnet18_moco_v2"))
