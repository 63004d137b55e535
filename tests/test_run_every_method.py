"""A run of every method: what it leaves, that it goes on where it stopped, and that no step waits for the device."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import runs
import timm
import torch
from PIL import Image
from runs import STEPS, elsewhere, outcome, run, state, tiny
from small_methods import CONFIGS, small_method
from whole_runs import Whole, contents, data, watched

import ssl_backbones
from ssl_backbones.methods import BYOLConfig, LewelBConfig, LewelMConfig, MethodConfig, MoCoV2Config
from ssl_backbones.models.backbone import weights_sha256
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import Checkpoints
from ssl_backbones.runs.log import read_log
from ssl_backbones.schedules import ema_momentum
from ssl_backbones.visualizers.alignment import HasAlignmentMaps

__all__ = ["data"]

LIKE_OTHERS = {"aligned", "barlow_twins", "lewel_nnclr", "lewel_swav", "nnclr", "patch_rotnet", "pixpro", "rotnet"}
LIKE_OTHERS |= {"simclr", "simsiam", "supcon", "supervised", "vicreg", "vicregl"}
"""Methods whose runs differ in nothing from those of others but their equations."""
SOME = [
    pytest.param(kind, marks=pytest.mark.slow if kind.name in LIKE_OTHERS else (), id=kind.__name__) for kind in CONFIGS
]


@pytest.fixture(scope="module", params=SOME)
def whole(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A run of every method there is, with a checkpoint before its last step."""
    out = tmp_path_factory.mktemp("whole") / "run"
    recipe = tiny(request.param, data, out, checkpoints=Checkpoints(every_steps=STEPS - 1, every_minutes=0))
    return watched(recipe, page=paged(request.param))


def paged(kind: type[MethodConfig]) -> bool:
    """True for the methods whose runs have a page: all with maps of their own, and one without."""
    return kind is BYOLConfig or isinstance(small_method(kind), HasAlignmentMaps)


# What a run leaves


def test_the_backbone_loads_in_plain_timm_and_here(whole: Whole) -> None:
    folder = whole.path / "backbone"
    method = whole.recipe.method.build(ssl_backbones.create_model("resnet8"))
    published = next(name for name, module in method.named_modules() if module is method.published)
    trained = {
        name.removeprefix(f"method/{published}."): tensor
        for name, tensor in state(whole.path).items()
        if name.startswith(f"method/{published}.")
    }
    for model in (
        timm.create_model(f"local-dir:{folder}", pretrained=True),
        ssl_backbones.create_model(str(folder), pretrained=True),
        ssl_backbones.create_model(str(whole.path), pretrained=True),
    ):
        loaded = model.state_dict()
        assert loaded.keys() == trained.keys()
        assert all(torch.equal(loaded[name], trained[name]) for name in trained)
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 64)


def test_the_weights_are_not_those_it_began_with(whole: Whole) -> None:
    torch.manual_seed(whole.recipe.seed)
    began = ssl_backbones.create_model("resnet8", num_classes=0).state_dict()
    ended = timm.create_model(f"local-dir:{whole.path / 'backbone'}", pretrained=True).state_dict()
    assert not any(torch.equal(began[name], ended[name]) for name in began if name.endswith("conv1.weight"))


def test_the_folder_holds_what_is_promised_and_no_pickle(whole: Whole) -> None:
    measured = {line["step"]: line["knn"] for line in read_log(whole.path / "log.jsonl") if "knn" in line}
    steps = [f"checkpoints/step-{step:08}" for step in (max(measured, key=measured.__getitem__), STEPS - 1, STEPS)]
    has_maps = isinstance(whole.recipe.method.build(ssl_backbones.create_model("resnet8")), HasAlignmentMaps)
    expected = {"README.md", "log.jsonl", "speed.jsonl", "results.json", "backbone/config.json"} | {
        "backbone/model.safetensors",
        *(f"{step}/{name}" for step in steps for name in ("MANIFEST.json", "method.safetensors")),
        *(f"{step}/{name}.safetensors" for step in steps for name in ("optimizer", "before", "last", "rank-00000")),
        *(["alignment_maps.png"] if has_maps else []),
        *(["gallery.html"] if paged(type(whole.recipe.method)) else []),
    }
    found = contents(whole.path)
    assert found.keys() == expected
    assert not any(bytes_.startswith((b"\x80\x02", b"\x80\x04", b"PK")) for _, bytes_ in found.values())
    assert Recipe.from_dict(json.loads((whole.path / "recipe.json").read_text())) == whole.recipe


def test_the_log_says_how_it_went(whole: Whole) -> None:
    lines = read_log(whole.path / "log.jsonl")
    measured = [line for line in lines if "knn" in line]
    trained = [line for line in lines if "loss" in line]
    assert lines == sorted(lines, key=lambda line: line["step"])
    assert [(line["step"], line["epoch"]) for line in measured] == [(0, 0), (3, 1), (6, 2)]
    told = {"step", "epoch", "std", "rank", "retrieval", "knn"}
    assert [line.keys() - told for line in measured] == [set(), {"kept"}, {"kept"}]
    assert [(line["step"], line["epoch"]) for line in trained] == [(2, 0), (4, 1), (6, 1)]
    parts = {"global_loss", "aligned_loss"}
    for line in trained:
        assert parts <= line.keys() or not parts & line.keys()
        if parts <= line.keys():
            assert line["loss"] == pytest.approx((line["global_loss"] + line["aligned_loss"]) / 2, rel=1e-5)
        assert line["lr"] == whole.recipe.lr(line["step"] - 1, STEPS // 2)
        method, progress = whole.recipe.method, (line["step"] - 1) / STEPS
        if isinstance(method, BYOLConfig | LewelBConfig):
            assert line["target_momentum"] == ema_momentum(progress, method.target_momentum)
        if isinstance(method, MoCoV2Config | LewelMConfig):
            assert line["key_momentum"] == method.momentum
    speeds = read_log(whole.path / "speed.jsonl")
    assert [line["step"] for line in speeds] == [line["step"] for line in lines]
    assert speeds[-2]["images_per_second"] > 0


def test_the_results_are_those_of_the_log(whole: Whole) -> None:
    results = json.loads((whole.path / "results.json").read_text())
    before, *_, after = (line for line in read_log(whole.path / "log.jsonl") if "knn" in line)
    numbers = results["numbers"]
    for name in ("std", "rank", "knn"):
        assert (numbers[f"{name} before"]["value"], numbers[name]["value"]) == (before[name], after[name])
    gain = numbers["knn gain"]
    assert gain["value"] == pytest.approx(after["knn"] - before["knn"])
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert (results["protocol"], results["model"], results["chance"]) == ("pretraining", whole.recipe.model, 0.5)
    trained = timm.create_model(f"local-dir:{whole.path / 'backbone'}", pretrained=True)
    assert results["weights_sha256"] == weights_sha256(trained)
    assert (results["steps"], results["unreadable"], results["data"]["images"]) == (STEPS, [], runs.IMAGES)
    card = (whole.path / "README.md").read_text()
    assert whole.recipe.name in card
    assert f"{100 * after['knn']:.1f}" in card


def test_the_picture_and_the_page_can_be_read(whole: Whole) -> None:
    picture = whole.path / "alignment_maps.png"
    if picture.exists():
        with Image.open(picture) as image:
            assert image.size[1] > 6 * 100
    if paged(type(whole.recipe.method)):
        page = (whole.path / "gallery.html").read_text()
        assert "Nearest neighbours" in page
        assert ("Alignment maps" in page) == picture.exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_every_method_has_a_page(kind: type[MethodConfig], data: Path, tmp_path: Path) -> None:
    folder = run(tiny(kind, data, tmp_path / "run"), page=True).path
    assert "Nearest neighbours" in (folder / "gallery.html").read_text()


# Stopped and started again


def test_every_method_goes_on_where_it_stopped(whole: Whole, tmp_path: Path) -> None:
    """A run that was killed in its last step has no last checkpoint and nothing that is left at the end."""
    path = Path(shutil.copytree(whole.path, tmp_path / "run"))
    for folder in (path / "backbone", path / "checkpoints" / f"step-{STEPS:08}"):
        shutil.rmtree(folder)
    (path / "results.json").unlink()
    assert state(path).keys() >= state(whole.path).keys()
    run(elsewhere(whole.recipe, path))
    assert outcome(path) == outcome(whole.path)


def test_a_finished_run_is_left_alone(whole: Whole, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(whole.path)
    run(whole.recipe)
    assert contents(whole.path) == before
    assert "holds the finished run" in capsys.readouterr().out


# How a step is made


def test_nothing_is_read_from_the_device_between_two_lines_of_the_log(whole: Whole) -> None:
    assert whole.read == [[]] * STEPS
