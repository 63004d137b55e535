"""Weights of others that are on this machine, which a backbone is compared with."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluations import evaluate_as, labelled_images
from runs import run_whole, tiny
from torch import nn
from whole_runs import data

from ssl_backbones import create_model
from ssl_backbones.catalogue import at_hand
from ssl_backbones.catalogue.at_hand import Candidate, is_here, weights_at_hand
from ssl_backbones.fetch.kept import CHECKPOINT, RECORD, folder_of
from ssl_backbones.files import read_object
from ssl_backbones.methods import BYOLConfig
from ssl_backbones.models.backbone import weights_sha256
from ssl_backbones.registry.errors import PretrainedWeightsError
from ssl_backbones.registry.image_sets import CLOTHING, IMAGENETTE
from ssl_backbones.registry.tags import TAGS
from ssl_backbones.train import baselines

__all__ = ["data"]


def test_weights_at_hand_are_a_strangers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    best = weights_at_hand("resnet8")
    assert best is not None
    assert (best.name, best.images) == ("resnet8_byol.imagenette32_60ep", "Imagenette")
    assert best.make().num_features == 64
    other = weights_at_hand("resnet8", IMAGENETTE.fingerprints[0])
    assert other is not None
    assert other.images == CLOTHING.name
    assert weights_at_hand("resnet56") is None


@pytest.mark.parametrize("command", ["pretrain", "diagnose"])
def test_weights_at_hand_that_cannot_be_made_cost_their_line_alone(
    command: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone() -> nn.Module:
        raise PretrainedWeightsError("the file kept in 'there' is not what was fetched")

    monkeypatch.setattr(baselines, "weights_at_hand", lambda *asked: Candidate("kept", gone))
    if command == "pretrain":
        results = read_object(run_whole(tiny(BYOLConfig, data, tmp_path / "run", epochs=1)).results, "")
    else:
        images = labelled_images(tmp_path / "photos")
        words = ["resnet8_byol", "--data", str(images / "train"), "--size", "16", "--workers", "0"]
        results = evaluate_as("diagnose", *words, "--out", str(tmp_path / "out"))
    names = [network["name"] for network in results["baselines"]["networks"]]
    assert names[1:] == ["random weights"]
    assert "Skipped the comparison with kept: the file kept" in capsys.readouterr().out


def test_a_start_that_is_at_hand_is_compared_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the end of a run, and where the run is evaluated later."""
    kept = "resnet8_byol.imagenette32_60ep"
    found = Candidate(kept, lambda: create_model(kept, pretrained=True, num_classes=0), once=True)
    monkeypatch.setattr(baselines, "weights_at_hand", lambda *asked: found)
    folder = run_whole(tiny(BYOLConfig, data, tmp_path / "run", epochs=1, init=kept))
    words = ["--data", str(data), "--size", "16", "--workers", "0", "--out", str(tmp_path / "out")]
    for told in (read_object(folder.results, ""), evaluate_as("diagnose", str(folder.path), *words)):
        own, *others = told["baselines"]["networks"]
        assert [other["name"] for other in others] == ["random weights", f"its start, {kept}"]
        assert len({network["weights_sha256"] for network in (own, *others)}) == 3


def test_damaged_weights_in_the_hubs_cache_cost_their_line_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"\x10" + 7 * b"\0" + b"{")
    monkeypatch.setattr(at_hand, "try_to_load_from_cache", lambda *asked: str(tmp_path / "model.safetensors"))
    found = baselines.at_hand("test_resnet", "")
    assert found is not None
    assert list(baselines.made([found], weights_sha256)) == []
    said = capsys.readouterr().out
    assert "Skipped the comparison with test_resnet.r160_in1k: could not load the weights" in said
    assert "the file is damaged" in said


def test_weights_whose_file_is_gone_are_not_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = folder_of("resnet50_swav.in1k_800ep")
    folder.mkdir(parents=True)
    (folder / RECORD).write_text("{}")
    tag = next(tag for tag in TAGS if tag.name == "resnet50_swav.in1k_800ep")
    assert not is_here(tag)
    (folder / CHECKPOINT).write_bytes(b"weights")
    assert is_here(tag)
