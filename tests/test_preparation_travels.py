"""The preparation of images goes with the weights, wherever they go: to the Hub, a mirror, a cache, a bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import ROOT, drawn_image
from huggingface_hub import constants, snapshot_download
from limits import HANG
from published import here, publishing
from runs import image_folder, run, sha, tiny

import ssl_backbones
from ssl_backbones import __main__
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.methods import MoCoV2Config

NAME = "org/resnet8_moco_v2.photos"
PREPARATION: dict[str, Any] = {
    "input_size": (3, 40, 48),
    "mean": (0.1, 0.2, 0.3),
    "std": (0.4, 0.5, 0.6),
    "interpolation": "bicubic",
    "crop_pct": 0.8,
}
"""None of it any backbone's usual."""
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of the Hub's own client


@dataclass(frozen=True)
class Sent:
    """A run that is on a Hub at an address, and what its backbone makes of an image."""

    address: str
    run: Path
    asked: Any
    answer: torch.Tensor


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    path = tmp_path_factory.mktemp("run")
    return run(tiny(MoCoV2Config, image_folder(path / "photos"), path / "run")).path


@pytest.fixture
def sent(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sent]:
    folder = Path(shutil.copytree(made, tmp_path / "run"))
    network = timm.create_model("resnet8", num_classes=0)
    save_backbone(network, folder / "backbone", "resnet8", **PREPARATION)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with here() as (address, hub):
        publishing(folder)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        monkeypatch.delenv("HF_TOKEN")
        hub.asked.clear()
        prepare = timm.data.create_transform(**timm.data.resolve_data_config(PREPARATION))
        yield Sent(address, folder, hub.asked, network.eval()(prepare(drawn_image(1, 80, 60))[None]))


def told(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of a configuration that PREPARATION names; JSON has lists for tuples."""
    return {key: tuple(config[key]) if isinstance(config[key], list) else config[key] for key in PREPARATION}


def check(model: Any, sent: Sent) -> None:
    """The model says how its images are prepared, and with that gives the very answer."""
    config = timm.data.resolve_model_data_config(model)
    assert told(config) == PREPARATION
    prepare = timm.data.create_transform(**config)
    assert torch.equal(model.eval()(prepare(drawn_image(1, 80, 60))[None]), sent.answer)


@pytest.mark.parametrize("kwargs", [{}, {"num_classes": 3}, {"features_only": True}], ids=str)
def test_from_the_hub_by_timm_and_by_us(kwargs: dict[str, Any], sent: Sent) -> None:
    for create in (timm.create_model, ssl_backbones.create_model):
        model = create(f"hf-hub:{NAME}", pretrained=True, **kwargs)
        assert told(timm.data.resolve_model_data_config(model)) == PREPARATION
        if not kwargs:
            check(model, sent)


def test_from_the_cache_without_a_network(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ssl_backbones.PretrainedWeightsError, match="local cache"):
            ssl_backbones.create_model(f"hf-hub:{NAME}", pretrained=True)
    assert not sent.asked
    ssl_backbones.create_model(f"hf-hub:{NAME}", pretrained=True)
    sent.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    check(ssl_backbones.create_model(f"hf-hub:{NAME}", pretrained=True), sent)
    check(timm.create_model(f"hf-hub:{NAME}", pretrained=True), sent)
    assert not sent.asked


def test_in_a_folder(sent: Sent, tmp_path: Path) -> None:
    folder = snapshot_download(NAME, local_dir=tmp_path / "folder", endpoint=sent.address)
    for name in (folder, f"local-dir:{folder}", str(sent.run)):
        check(ssl_backbones.create_model(name, pretrained=True), sent)
    check(timm.create_model(f"local-dir:{folder}", pretrained=True), sent)


def test_in_a_bundle_of_the_hub_and_of_a_folder(
    sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in (f"hf-hub:{NAME}", str(sent.run)):
        out = tmp_path / f"bundle_{model.startswith('hf-hub:')}"
        assert __main__.main(["bundle", model, "--out", str(out)]) == 0
        there = shutil.move(out, tmp_path / "there" / out.name)
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(constants, "HF_HUB_OFFLINE", True)
            sent.asked.clear()
            assert __main__.main(["verify", str(there)]) == 0
            check(eval(capsys.readouterr().out.strip(), {"ssl_backbones": ssl_backbones}), sent)
            assert not sent.asked


READ = """
import json, sys, ssl_backbones, timm, torch
model = timm.create_model(sys.argv[1], pretrained=True)
print(ssl_backbones.describe(sys.argv[1]))
print(json.dumps(timm.data.resolve_model_data_config(model)))
torch.save(model.state_dict(), sys.argv[2])
"""


@pytest.mark.slow
def test_from_a_mirror_and_then_offline_by_the_environment_alone(sent: Sent, tmp_path: Path) -> None:
    """In processes of their own: what HF_ENDPOINT serves once is there when HF_HUB_OFFLINE is set."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    plain |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
    for more in ({"HF_ENDPOINT": sent.address}, {"HF_HUB_OFFLINE": "1"}):
        sent.asked.clear()
        words = [sys.executable, "-c", READ, f"hf-hub:{NAME}", str(tmp_path / "got.pt")]
        done = subprocess.run(words, env=plain | more, capture_output=True, text=True, timeout=HANG, check=False)
        assert done.returncode == 0, done.stderr
        *described, config = done.stdout.splitlines()
        assert told(json.loads(config)) == PREPARATION
        assert f"mean {list(PREPARATION['mean'])}" in " ".join(described)
        got = torch.load(tmp_path / "got.pt", weights_only=True)
        assert sha(got) == sha(dict(ssl_backbones.create_model(sent.run, pretrained=True).state_dict()))
        assert bool(sent.asked) == ("HF_ENDPOINT" in more)
