"""Evaluations that train from given weights: each says whose they are, holds them, and records them."""

from __future__ import annotations

import json
import pkgutil
import shutil
from abc import ABC
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import drawn_objects
import pytest
import safetensors.torch
import scenes
import test_detect
import test_segment
import torch
from channel_images import channel_folder
from labelled_runs import divided
from runs import Killed, after, forget, killed, run, tiny
from scripts import script
from unusual_start import MEAN, STD, network

from ssl_backbones import evaluate
from ssl_backbones.commands import main
from ssl_backbones.commands.evaluate import parse
from ssl_backbones.evaluate.beside_baselines import candidates
from ssl_backbones.evaluate.classification.labelled_run import LabelledRun
from ssl_backbones.evaluate.evaluation import evaluation
from ssl_backbones.evaluate.protocols import diagnose
from ssl_backbones.evaluate.transfer import Transfer
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.methods import BYOLConfig
from ssl_backbones.models.backbone import weights_sha256

LABELLED = ["--size", "16", "--epochs", "1", "--batch_size", "9", "--workers", "0", "--seed", "3"]
DETECTED = [*(word for word in test_detect.QUICK if word != "--random"), *test_detect.SHORT]


def takers() -> list[type[Transfer]]:
    """Every evaluation that has --init, found by being there."""
    found: dict[str, type[Transfer]] = {}
    for module in pkgutil.walk_packages(evaluate.__path__, f"{evaluate.__name__}."):
        for value in vars(import_module(module.name)).values():
            own = isinstance(value, type) and value.__module__ == module.name and ABC not in value.__bases__
            if own and "init" in getattr(value, "__dataclass_fields__", {}):
                found[f"{module.name}.{value.__name__}"] = value
    return [found[name] for name in sorted(found)]


def ways() -> dict[str, type[Transfer]]:
    """The first words of every evaluation, with the preset that stands for each way to train it."""
    found: dict[str, type[Transfer]] = {}
    for kind in takers():
        module = import_module(kind.__module__)
        if not issubclass(kind, LabelledRun):
            found[f"{kind.__name__.removesuffix('Run').lower()} --preset small"] = kind
            continue
        presets = {preset.task.views.augment: name for name, preset in reversed(module.PRESETS.items())}
        found |= {f"evaluate {module.__name__.rpartition('.')[2]} --preset {name}": kind for name in presets.values()}
    return found


WAYS = ways()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The words of each command that name small images for it, and few steps."""
    path = tmp_path_factory.mktemp("images")
    data = {
        "evaluate": (divided(path / "labelled"), LABELLED),
        "segment": (scenes.voc_folder(path / "scenes"), test_segment.SHORT),
        "detect": (drawn_objects.parquet(path / "objects"), DETECTED),
    }
    return {command: ["--data", str(folder), *words] for command, (folder, words) in data.items()}


@pytest.fixture(scope="module", params=[1, 3])
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of grey images or of RGB, with a licence and a source."""
    own = request.param
    levels: dict[str, Any] = {"mean": MEAN[:own], "std": STD[:own], "input_size": (own, 32, 32)}
    about = {"license": "cc-by-nc-4.0", "origin_url": "https://example.org/weights"}
    out = tmp_path_factory.mktemp("starts") / f"of_{own}"
    return save_backbone(network(1, in_chans=own), out, "resnet8", **levels, **about)


def wanted(start: Path) -> dict[str, torch.Tensor]:
    """Those weights in a network for RGB."""
    weights = network(1, in_chans=int(start.name[-1])).state_dict()
    first = weights["conv1.weight"]
    weights["conv1.weight"] = first.expand(-1, 3, -1, -1) / 3 if first.shape[1] == 1 else first
    return weights


def begun(way: str, *words: str) -> None:
    """An evaluation from the words of its command, as a process of its own would begin it."""
    command, *first = way.split()
    model = first.pop(0) if command == "evaluate" else ""
    forget()
    try:
        script(command, [*filter(None, [model]), *words, *first])
    finally:
        forget()


def built(kind: type[Transfer], patch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The weights of every backbone that a task is built around from now on."""
    found: list[dict[str, torch.Tensor]] = []
    for task in {type(preset.task) for preset in import_module(kind.__module__).PRESETS.values()}:

        def build(config: Any, backbone: Any, whole: Any = task.build) -> Any:
            found.append({name: value.clone() for name, value in backbone.state_dict().items()})
            return whole(config, backbone)

        patch.setattr(task, "build", build)
    return found


def test_all_evaluations_that_train_are_found() -> None:
    """So that a new one is held to what follows."""
    assert {way.partition(" --")[0] for way in WAYS} >= {
        *("detect", "segment", "evaluate finetune", "evaluate linear", "evaluate semi")
    }


@pytest.mark.parametrize("way", WAYS)
def test_an_evaluation_says_its_start_holds_it_and_records_it(
    way: str,
    start: Path,
    images: dict[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As it begins and as it goes on, of grey images or of RGB, in a model that holds weights of its own."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    own = str(save_backbone(network(2), tmp_path / "own", "resnet8", license="cc0-1.0", input_size=(3, 32, 32)))
    given = str(start if start.name == "of_1" else start / "model.safetensors")
    words = [own, "--init", given, "--out", str(tmp_path / "out"), *images[way.partition(" ")[0]]]
    words += ["--share", "1"] if "semi" in way else []
    seen = built(WAYS[way], monkeypatch)
    with after(1, killed), suppress(Killed):
        begun(way, *words)
    said = [capsys.readouterr().out]
    begun(way, *words)
    said.append(capsys.readouterr().out)
    weights, number = wanted(start), int(start.name[-1])
    mean, std = (", ".join(f"{value:g}" for value in values[:number]) for values in (MEAN, STD))
    for each in said:
        assert each.count("Starts from ") == 1
        assert f"Starts from of_{number} (resnet8), licence: cc-by-nc-4.0" in each
        assert "source: https://example.org/weights" in each
        assert "it has no head." in each
        assert f"Images are prepared as the start's were: mean {mean}, deviation {std}." in each
    assert f"{own} from of_{number} on " in said[0]
    assert len(seen) == 2
    for found in seen:
        assert found.keys() == weights.keys()
        for name, value in weights.items():
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=0)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    recorded = results["start"]
    assert (recorded["licence"], recorded["source"]) == ("cc-by-nc-4.0", "https://example.org/weights")
    assert recorded["sha256"] == weights_sha256(network(1, in_chans=number))
    for folder in (tmp_path / "out" / left for left in ("backbone", "classifier")):
        if folder.exists():
            cfg = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
            assert cfg["description"].split("; ")[1] == f"begun with of_{number}"
            assert (cfg["license"], cfg["input_size"][0], cfg["mean"]) == (
                "cc-by-nc-4.0",
                3,
                [*(MEAN[:number] * 3)[:3]],
            )


@pytest.mark.parametrize("way", WAYS)
def test_without_a_start_none_is_told(
    way: str, images: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["resnet8", "--random", "--out", str(tmp_path / "out"), *images[way.partition(" ")[0]]]
    words += ["--share", "1"] if "semi" in way else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        with after(1, killed), suppress(Killed):
            begun(way, *words)
    assert "Starts from" not in capsys.readouterr().out


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "fault",
    ["another network", "a tensor is missing", "missing in a folder", "nothing there", "a model of grey images"],
)
def test_a_start_that_does_not_fit_is_one_sentence_before_any_work(
    way: str, fault: str, images: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = save_backbone(network(1), tmp_path / "start", "resnet8", input_size=(3, 32, 32))
    model, init, expected = {
        "another network": ("resnet20", start, "start is a resnet8 and a resnet20 is to be trained: name a start of"),
        "a tensor is missing": ("resnet8", without(start, "bn1.running_var"), "bn1.running_var"),
        "missing in a folder": (
            "resnet8",
            folder_without(start, "bn1.running_var"),
            "lacking: these are not the weights",
        ),
        "nothing there": ("resnet8", tmp_path / "nothing", "no folder, is called"),
        "a model of grey images": (grey(tmp_path / "grey"), start, "must be that of RGB images"),
    }[fault]
    command, *first = way.split()
    words = [command, *first[: command == "evaluate"], str(model), "--init", str(init), *first[command == "evaluate" :]]
    words += ["--share", "1"] if "semi" in way else []
    assert main([*words, "--out", str(tmp_path / "out"), *images[command]]) == 2
    told = capsys.readouterr().err.strip()
    assert expected in told
    assert "\n" not in told
    assert not (tmp_path / "out").exists()


def without(start: Path, name: str) -> Path:
    """A file of the start's weights that lacks one."""
    weights = network(1).state_dict()
    del weights[name]
    torch.save(weights, start.parent / "lacking.pth")
    return start.parent / "lacking.pth"


def folder_without(start: Path, name: str) -> Path:
    """A folder of the start's weights that lacks one."""
    weights = network(1).state_dict()
    del weights[name]
    out = Path(shutil.copytree(start, start.parent / "lacking"))
    safetensors.torch.save_file(weights, out / "model.safetensors")
    return out


def grey(path: Path) -> Path:
    return save_backbone(network(2, in_chans=1), path, "resnet8", input_size=(1, 32, 32))


def test_the_start_beside_a_run_is_asked_about_the_runs_own_images(tmp_path: Path) -> None:
    """A start of RGB is adapted to their four channels, and its levels give way to those that were measured."""
    data = channel_folder(tmp_path / "data", 26, classes=("bag", "hat"))
    levels: dict[str, Any] = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "input_size": (3, 32, 32)}
    start = save_backbone(network(1), tmp_path / "start", "resnet8", **levels)
    recipe = tiny(
        BYOLConfig,
        data,
        tmp_path / "run",
        in_chans=4,
        views="channels",
        statistics="data",
        init=str(start),
        max_steps=1,
    )
    run(recipe)
    words = ["diagnose", str(tmp_path / "run"), "--data", str(data), "--out", str(tmp_path / "out"), "--in_chans", "4"]
    options = parse([*words, "--workers", "0"], "evaluate").asked
    with evaluation("diagnose", options, diagnose.opened(options)[0], None, "") as asked:
        assert not isinstance(asked, dict)
        of_start = next(one for one in candidates(asked) if one.name.startswith("its start")).make()
    expected = network(1).state_dict()["conv1.weight"]
    torch.testing.assert_close(of_start.network.state_dict()["conv1.weight"], expected[:, [0, 1, 2, 0]] * 0.75)
    assert of_start.crop == asked.model.crop
    assert of_start.crop.mean not in (MEAN, (*MEAN, MEAN[0]))
