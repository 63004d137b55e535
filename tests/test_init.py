"""A run that starts from given weights: whatever names them, they are put whole into the network of every method."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from runs import run, run_whole, tiny
from small_methods import CONFIGS, STAND_INS
from test_step_cost import Calls
from torch import nn
from unusual_start import MEAN, SHIPPED, STD, folder, network
from whole_runs import data

import ssl_backbones
from ssl_backbones import recipes
from ssl_backbones.catalogue.start import StartError, adapted, fill, open_start
from ssl_backbones.data import Request, open_images
from ssl_backbones.evaluate.model import open_model
from ssl_backbones.evaluate.segmentation.fcn import dilated
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.methods import BYOLConfig, MethodConfig, SupervisedConfig
from ssl_backbones.models.backbone import weights_sha256
from ssl_backbones.models.ema import EMA
from ssl_backbones.models.provenance import Provenance
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.train.beginning import Beginning, begin
from ssl_backbones.train.prepare import UnfitError
from ssl_backbones.train.pretrain import build
from ssl_backbones.typed.values import from_plain

__all__ = ["data", "folder"]


def begun(recipe: Recipe) -> nn.Module:
    return build(begin(recipe))


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.name)
def test_every_method_begins_with_the_start_and_so_does_what_follows_it(
    kind: type[MethodConfig], data: Path, folder: Path, tmp_path: Path
):
    recipe = tiny(kind, data, tmp_path, init=str(folder))
    method, random = begun(recipe), begun(dataclasses.replace(recipe, init=""))
    wanted, drawn = network(1).state_dict(), random.state_dict()
    networks = [method.backbone, *(part.backbone for part in method.modules() if isinstance(part, EMA))]
    for part in networks:
        found = part.state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], value) for key, value in wanted.items())
    heads = {key for key in drawn if "backbone." not in key}
    assert all(torch.equal(method.state_dict()[key], drawn[key]) for key in heads), "heads are drawn as without a start"


@pytest.mark.parametrize("kind", STAND_INS)
def test_a_start_adds_no_operation_to_a_step(kind: type[MethodConfig], data: Path, folder: Path, tmp_path: Path):
    recipe = tiny(kind, data, tmp_path, init=str(folder))
    counts = []
    for one in (recipe, dataclasses.replace(recipe, init="")):
        method = begun(one).train()
        dataset = method.dataset(open_images(str(data)), 16, 1)
        content = dataset[Request(0, np.arange(8))].content
        dataset.on_device(content)  # brings the mean and the deviation to the device, once for all steps
        with Calls() as calls:
            method(dataset.on_device(content))["loss"].backward()
            method.on_step_end(0.5)
        counts.append(calls.count)
    assert counts[0] == counts[1]
    assert counts[0].total() > 100


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.name)
def test_every_methods_views_are_prepared_as_the_starts_images_were(
    kind: type[MethodConfig], data: Path, folder: Path, tmp_path: Path
):
    recipe = begin(tiny(kind, data, tmp_path, init=str(folder))).recipe
    transform: Any = begun(recipe).transform(16)
    inner = next((getattr(transform, name) for name in ("base", "views") if hasattr(transform, name)), transform)
    assert (inner.mean, inner.std) == (MEAN, STD)
    for policy in getattr(inner, "policies", ()):
        assert policy.interpolation == "bicubic"


def named_starts(folder: Path, tmp_path: Path) -> dict[str, str]:
    """The same weights under every kind of name that needs no network."""
    weights = network(1).state_dict()
    safetensors.torch.save_file(weights, tmp_path / "plain.safetensors")
    torch.save({"state_dict": {f"module.encoder.{key}": value for key, value in weights.items()}}, tmp_path / "a.pth")
    headed = network(1, num_classes=3)
    headed.load_state_dict(weights, strict=False)
    timm.models.save_for_hf(headed, tmp_path / "headed", safe_serialization=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "backbone").symlink_to(folder)
    return {
        "a folder": str(folder),
        "a folder as timm names it": f"local-dir:{folder}",
        "the file in it": str(folder / "model.safetensors"),
        "a run's folder": str(tmp_path / "run"),
        "a safetensors file": str(tmp_path / "plain.safetensors"),
        "a checkpoint of anybody's": str(tmp_path / "a.pth"),
        "a network with a head": str(tmp_path / "headed"),
    }


def test_whatever_names_them_the_same_weights_are_put_in(folder: Path, tmp_path: Path):
    for kind, name in named_starts(folder, tmp_path).items():
        backbone = ssl_backbones.create_model("resnet8_byol", num_classes=0)
        start = open_start(name, "resnet8")
        fill(backbone, start)
        assert weights_sha256(backbone) == start.provenance.sha256 == weights_sha256(network(1)), kind
        assert start.provenance.architecture == "resnet8"
        assert ("head of 3 classes" in start.left_out) == (kind == "a network with a head"), kind


def in_the_cache(folder: Path, repository: str) -> str:
    """A folder as a repository that was fetched before."""
    place = Path(huggingface_hub.constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}")
    shutil.copytree(folder, place / "snapshots" / ("0" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    return f"hf-hub:{repository}"


@pytest.mark.parametrize("kind", ["a name", "timm's name", "a folder", "a run", "a repository", "another size"])
def test_a_model_of_any_kind_is_evaluated_with_the_start_and_not_with_its_own_weights(
    kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    own = save_backbone(network(2), tmp_path / "run" / "backbone", "resnet8", license="cc0-1.0")
    model = {"a name": SHIPPED, "timm's name": "resnet8", "a folder": str(own), "a run": str(own.parent)}.get(kind)
    if kind == "a repository":
        monkeypatch.setattr("timm.models._hub.hf_hub_download", lambda repo_id, filename, **_: str(own / filename))
        model = in_the_cache(own, "org/own")
    if kind == "another size":
        model = str(save_backbone(network(2), tmp_path / "large", "resnet8", input_size=(3, 96, 96)))
    opened = open_model(model, torch.device("cpu"), init=str(folder))
    assert opened.weights_sha256 == weights_sha256(network(1))
    assert opened.network.pretrained_cfg["license"] == "cc-by-nc-4.0"
    file = {"pretrained_cfg_overlay": {"file": str(folder / "model.safetensors")}}
    brought = ssl_backbones.create_model(model, pretrained=True, num_classes=0, **file)
    assert weights_sha256(brought) == weights_sha256(network(1))
    maps = dilated(model, True, 0, opened.network)
    assert weights_sha256(maps) == weights_sha256(network(1)), "as segmentation takes them"


@pytest.mark.parametrize("own", [1, 3, 4])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_start_of_other_channels_fills_the_model_that_is_evaluated(own: int, channels: int, tmp_path: Path):
    """Its first convolution is adapted as in pretraining, and levels are those of as many channels."""
    levels: dict[str, Any] = {"mean": (*MEAN, 0.6)[:own], "std": (*STD, 0.4)[:own]}
    start = save_backbone(network(1, in_chans=own), tmp_path / "start", "resnet8", input_size=(own, 32, 32), **levels)
    model = save_backbone(
        network(2, in_chans=channels), tmp_path / "own", "resnet8", input_size=(channels, 32, 32), license="cc0-1.0"
    )
    opened = open_model(model, torch.device("cpu"), init=str(start), channels=channels)
    wanted = network(1, in_chans=own).state_dict()
    wanted["conv1.weight"] = adapted(wanted["conv1.weight"], channels)
    found = opened.network.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
    assert opened.crop.mean == (levels["mean"] * 4)[:channels]
    assert opened.start is not None
    assert opened.start.provenance.sha256 == weights_sha256(network(1, in_chans=own))


@pytest.mark.parametrize("name", [SHIPPED, "resnet8_byol"])
def test_a_registered_name_is_a_start(name: str):
    backbone = ssl_backbones.create_model("resnet8_moco_v2", num_classes=0)
    fill(backbone, open_start(name, "resnet8"))
    assert weights_sha256(backbone) == weights_sha256(ssl_backbones.create_model(SHIPPED, pretrained=True))


def test_a_start_of_another_architecture_is_refused_in_one_sentence(data: Path, tmp_path: Path):
    recipe = tiny(BYOLConfig, data, tmp_path / "run", init=SHIPPED, model="resnet20_byol")
    with pytest.raises(UnfitError) as caught:
        run(recipe)
    assert str(caught.value) == (
        f"{SHIPPED} is a resnet8 and a resnet20 is to be trained: name a start of that network with --init, or a "
        "model of the start's network"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fault", ["lacks", "has in excess", "has in another shape"])
def test_a_start_that_does_not_fill_the_network_is_refused_with_what_is_missing(fault: str, folder: Path):
    start = open_start(str(folder), "resnet8")
    weights = dict(start.weights)
    if fault == "lacks":
        del weights["layer2.0.bn1.running_mean"]
    elif fault == "has in excess":
        weights["layer4.0.conv1.weight"] = torch.zeros(1)
    else:
        weights["bn1.weight"] = torch.zeros(5)
    backbone = ssl_backbones.create_model("resnet8_byol", num_classes=0)
    before = weights_sha256(backbone)
    with pytest.raises(StartError, match=fault) as caught:
        fill(backbone, dataclasses.replace(start, weights=weights))
    named = {"lacks": "running_mean", "has in excess": "layer4.0.conv1", "has in another shape": "bn1.weight"}
    assert named[fault] in str(caught.value)
    assert weights_sha256(backbone) == before


def test_a_file_that_lacks_a_tensor_is_refused_with_its_name(tmp_path: Path):
    weights = network(1).state_dict()
    del weights["bn1.running_var"]
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks bn1\.running_var"):
        open_start(str(tmp_path / "model.safetensors"), "resnet8")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet8", "num_classes": 0}))
    with pytest.raises(StartError.__mro__[1], match=r"bn1\.running_var"):
        open_start(str(tmp_path), "resnet8")


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_a_first_convolution_for_other_channels_is_timms(channels: int, folder: Path, tmp_path: Path):
    given = open_start(str(folder), "resnet8")
    backbone = ssl_backbones.create_model("resnet8_byol", num_classes=0, in_chans=channels)
    fill(backbone, given)
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0, in_chans=channels)
    assert weights_sha256(backbone) == weights_sha256(theirs)
    assert backbone.pretrained_cfg["mean"] == (MEAN * 2)[:channels]


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
@pytest.mark.parametrize("own", [1, 2, 3, 4])
def test_channels_are_summed_or_repeated_and_cut(own: int, channels: int):
    weight = torch.rand(2, own, 3, 3)
    if channels == own:
        expected = weight
    elif channels == 1:
        expected = weight.sum(dim=1, keepdim=True)
    else:
        expected = torch.stack([weight[:, at % own] for at in range(channels)], dim=1) * own / channels
    assert torch.allclose(adapted(weight, channels), expected)
    if channels % own == 0:
        assert torch.allclose(expected.sum(dim=1), weight.sum(dim=1)), "the answer to grey is kept"


def test_the_start_is_recorded_and_measured_beside_random_weights_and_after(
    data: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    recipe = tiny(BYOLConfig, data, tmp_path / "run", init=str(folder))
    run(recipe)
    said = capsys.readouterr().out
    results, plain = (json.loads((tmp_path / "run" / f"{name}.json").read_text()) for name in ("results", "recipe"))
    start = results["start"]
    assert plain["start"] == start
    assert (start["sha256"], start["licence"]) == (weights_sha256(network(1)), "cc-by-nc-4.0")
    assert "NON-COMMERCIAL" in said
    assert "mean 0.5, 0.4, 0.3, deviation 0.2, 0.25, 0.3, bicubic, evaluated at crop 0.75" in said
    assert Recipe.from_dict(plain).start == from_plain(Provenance, start)
    numbers = results["numbers"]
    assert {"knn random", "knn before", "knn", "knn gain", "knn gain over random"} <= numbers.keys()
    assert [line.split()[0] for line in said.splitlines() if line.startswith("  ")][:4] == [
        "chance",
        "random",
        "the",
        "the",
    ]
    config = json.loads((tmp_path / "run" / "backbone" / "config.json").read_text())["pretrained_cfg"]
    assert (tuple(config["mean"]), tuple(config["std"])) == (MEAN, STD)
    assert (config["interpolation"], config["crop_pct"], config["license"]) == ("bicubic", 0.75, "cc-by-nc-4.0")


def test_random_weights_are_those_that_a_run_without_a_start_begins_with(data: Path, tmp_path: Path):
    torch.manual_seed(0)
    usual = save_backbone(network(1), tmp_path / "usual", "resnet8", crop_pct=1.0, input_size=(3, 32, 32))
    numbers = []
    for name, init in (("with", str(usual)), ("without", "")):
        run(tiny(BYOLConfig, data, tmp_path / name, init=init))
        numbers.append(json.loads((tmp_path / name / "results.json").read_text())["numbers"])
    for kind in ("knn", "std", "rank"):
        assert numbers[0][f"{kind} random"] == numbers[1][f"{kind} before"]
        assert numbers[0][f"{kind} before"]["value"] != numbers[1][f"{kind} before"]["value"]


@pytest.mark.parametrize("kind", ["a name", "timm's name", "a tag of timm's", "a run"])
def test_random_weights_of_any_model_are_those_that_pretraining_begins_with(kind: str, data: Path, tmp_path: Path):
    """Those of ResNets too, whose blocks timm begins as identities; whole, and as the maps that segmentation takes."""
    begun = begin(tiny(BYOLConfig, data, tmp_path / "run", model="resnet18_byol", seed=3)).backbone()
    models = {"a name": "resnet18_distilled", "timm's name": "resnet18", "a tag of timm's": "resnet18.a1_in1k"}
    if kind == "a run":
        save_backbone(begun, tmp_path / "run" / "backbone", "resnet18", input_size=(3, 32, 32))
    model = models.get(kind, str(tmp_path / "run"))
    opened = open_model(model, torch.device("cpu"), random=True, seed=3)
    assert opened.weights_sha256 == weights_sha256(begun)
    maps = dilated(model, False, 0).state_dict()
    assert all(torch.equal(maps[key], value) for key, value in begun.state_dict().items() if ".bn" in key)


def test_the_backbone_before_the_first_step_is_the_start(data: Path, tmp_path: Path):
    """Its k-NN, spread and rank are those of the start evaluated by itself."""
    recipe = tiny(BYOLConfig, data, tmp_path / "run", init=SHIPPED)
    run_whole(recipe)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    found, seen = results["numbers"], [network["weights_sha256"] for network in results["baselines"]["networks"]]
    assert seen.count(results["start"]["sha256"]) == 1, "the start is not held against the backbone twice"
    kept = tiny(SupervisedConfig, data, tmp_path / "kept", init=SHIPPED)
    run(kept)
    again = json.loads((tmp_path / "kept" / "results.json").read_text())["numbers"]
    assert [found[f"{name} before"] for name in ("knn", "std", "rank")] == [
        again[f"{name} before"] for name in ("knn", "std", "rank")
    ]


@pytest.mark.parametrize("name", ["resnet8_swav", "resnet50_lewel_b.in1k_400ep", "nothing_like_it", "no/such/folder"])
def test_a_start_that_cannot_be_had_is_refused_with_ways_out(name: str, data: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"near it are|--init|`ssl-backbones list`|on the Hub is named") as caught:
        run(tiny(BYOLConfig, data, tmp_path / "run", init=name))
    assert "pretrained=False" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "resnet50_swav.in1k_800ep", "hf-hub:org/name"])
def test_without_a_network_three_ways_out_are_told(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UnfitError) as caught:
        run(tiny(BYOLConfig, data, tmp_path / "run", init=name))
    said = str(caught.value)
    assert "not in the l" in said or "not in the cache" in said
    for way_out in ("HF_ENDPOINT", "another machine", "leave --init out"):
        assert way_out in said
    assert "\n" not in said


@pytest.mark.parametrize("gpus", [0, 2])
@pytest.mark.parametrize("made", [Beginning.drawn, Beginning.started])
def test_a_network_that_is_made_anew_moves_no_generator(
    made: Callable[[Beginning], nn.Module], gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one of several GPUs, of which torch would warn if they were not named."""
    kept: list[int] = []
    recipe = dataclasses.replace(recipes.get("resnet8_byol.own"), init="resnet8_byol.imagenette32_60ep")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.tensor(device))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: kept.append(device))
    before = torch.get_rng_state()
    made(Beginning(recipe, None))
    assert torch.equal(torch.get_rng_state(), before)
    assert kept == list(range(gpus))
