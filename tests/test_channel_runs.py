"""A run on images of four channels and 16 bits, from the data to a backbone that timm loads and evaluations take."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import tifffile
import timm
import torch
from channel_images import channel_folder, drawn_values
from runs import Part, as_rank, elsewhere, outcome, run, stop, tiny
from two_processes import run_two_processes

import ssl_backbones
from ssl_backbones.data import DecodePolicy, ImageSourceError, open_images
from ssl_backbones.data.statistics import Statistics, measured
from ssl_backbones.evaluate.features import features_of
from ssl_backbones.evaluate.protocols import knn
from ssl_backbones.methods import BYOLConfig, LewelBConfig, method_from_run
from ssl_backbones.models.backbone import PreparationError, center_crop, weights_sha256
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.train.beginning import Beginning, begin
from ssl_backbones.train.channels import measures, with_statistics

SHIPPED = "resnet8_byol.imagenette32_60ep"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return channel_folder(tmp_path_factory.mktemp("channels") / "data", 26, classes=("bag", "hat"))


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run of three steps, ended."""
    out = tmp_path_factory.mktemp("run") / "run"
    recipe = tiny(LewelBConfig, data, out, in_chans=4, views="channels", max_steps=3)
    run(recipe)
    return recipe


def test_its_backbone_has_the_channels_and_statistics_of_the_data(done: Recipe, data: Path) -> None:
    found = measured(open_images(data, DecodePolicy(channels=4)), done.seed)
    recorded = json.loads((done.folder / "recipe.json").read_text())
    cfg = json.loads((done.folder / "backbone" / "config.json").read_text())["pretrained_cfg"]
    assert recorded["measured"] == json.loads(json.dumps(dataclasses.asdict(found)))
    assert (cfg["input_size"], cfg["mean"], cfg["std"]) == ([4, 16, 16], [*found.mean], [*found.std])
    assert recorded["in_chans"] == 4
    assert not any(view["grey_p"] for view in recorded["method"]["views"])
    assert "(H, W, 4)" in (done.folder / "README.md").read_text()


def test_everybody_loads_the_same_weights(done: Recipe) -> None:
    digest = json.loads((done.folder / "results.json").read_text())["weights_sha256"]
    ours = ssl_backbones.create_model(done.folder, pretrained=True)
    theirs = timm.create_model(f"local-dir:{done.folder / 'backbone'}", pretrained=True)
    for model in (ours, theirs):
        assert model.conv1.in_channels == 4
        assert weights_sha256(model) == digest
        assert model.eval()(torch.zeros(1, 4, 16, 16)).isfinite().all()


def test_it_is_evaluated_with_its_channels_and_refused_without(done: Recipe, data: Path, tmp_path: Path) -> None:
    options = knn.Options(model=str(done.folder), data=str(data), out=str(tmp_path / "knn"), in_chans=4, workers=0)
    assert knn.run(options)["settings"]["in_chans"] == 4
    rows = features_of(options.open_model(), open_images(data, options.decoding), options.extraction()).rows
    assert rows.shape == (26, 64)
    assert rows.std(dim=0).max() > 0
    with pytest.raises(PreparationError, match=r"input_size is \[4, 16, 16\].*--in_chans 4"):
        dataclasses.replace(options, in_chans=0).open_model()
    with pytest.raises(ImageSourceError, match="--in_chans N reads them"):
        knn.run(dataclasses.replace(options, in_chans=0))


def test_statistics_are_kept_where_the_run_goes_on(done: Recipe, data: Path) -> None:
    images = open_images(data, DecodePolicy(channels=4))
    images.policy = DecodePolicy(channels=9)  # nothing can be measured any more
    assert with_statistics(done, images).measured is not None
    with pytest.raises(ImageSourceError, match="none of 26 images"):
        with_statistics(dataclasses.replace(done, out=str(done.folder / "other")), images)


def test_its_method_is_made_from_the_run_with_heads_and_channels(done: Recipe) -> None:
    method = method_from_run(done.folder)
    assert (center_crop(method.backbone, 16, 4).mean, method.backbone.conv1.in_channels) == (recorded_mean(done), 4)
    with pytest.raises(PreparationError, match="RGB images"):
        center_crop(method.backbone, 16)


def recorded_mean(recipe: Recipe) -> tuple[float, ...]:
    return tuple(json.loads((recipe.folder / "recipe.json").read_text())["measured"]["mean"])


def test_statistics_of_rgb_and_of_a_start_are_the_datas_where_it_is_asked_for(tmp_path: Path) -> None:
    found = Statistics((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), images=1, of=1, pixels=1)
    recipe = dataclasses.replace(tiny(BYOLConfig, tmp_path, tmp_path / "run"), measured=found)
    assert center_crop(Beginning(recipe, None).backbone(), 16).mean == found.mean
    assert measures(dataclasses.replace(recipe, statistics="data"))
    assert not measures(recipe), "what exists keeps ImageNet's"
    four = Statistics((0.1, 0.2, 0.3, 0.4), (0.5,) * 4, images=1, of=1, pixels=1)
    given = begin(dataclasses.replace(recipe, in_chans=4, views="channels", init=SHIPPED, measured=four)).backbone()
    weights = ssl_backbones.create_model(SHIPPED, pretrained=True, num_classes=0, in_chans=4)
    assert center_crop(given, 16, 4).mean == four.mean
    assert weights_sha256(given) == weights_sha256(weights)


@pytest.mark.slow
def test_stopped_it_goes_on_to_the_same_end(done: Recipe, tmp_path: Path) -> None:
    again = elsewhere(done, tmp_path / "run")
    stop(again, 2)
    run(again)
    assert outcome(tmp_path / "run") == outcome(done.folder)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3, 12])
def test_any_number_of_channels_is_trained_on(channels: int, tmp_path: Path) -> None:
    data = channel_folder(tmp_path / "data", 26, channels)
    recipe = tiny(LewelBConfig, data, tmp_path / "run", in_chans=channels, views="channels", max_steps=2)
    run(recipe, page=True)
    assert (recipe.folder / "alignment_maps.png").is_file()
    assert (recipe.folder / "gallery.html").is_file()
    assert "were not drawn" not in (recipe.folder / "gallery.html").read_text()
    digest = json.loads((recipe.folder / "results.json").read_text())["weights_sha256"]
    model = ssl_backbones.create_model(recipe.folder, pretrained=True)
    assert (model.conv1.in_channels, weights_sha256(model)) == (channels, digest)


@pytest.mark.slow
def test_two_processes_train_on_six_channels_of_a_tiff_alike(tmp_path: Path) -> None:
    """From statistics that one of them measured, and to a backbone that is published with them."""
    data = tmp_path / "data"
    for number in range(26):
        below = data / ("bag", "hat")[number % 2]
        below.mkdir(parents=True, exist_ok=True)
        values = drawn_values(number, 24 + number % 5, 28, 6)
        tifffile.imwrite(below / f"{number:02}.tif", values, photometric="minisblack", planarconfig="contig")
    recipe = tiny(LewelBConfig, data, tmp_path / "run", {"target_bn": "sync"}, in_chans=6, views="channels")
    first, second = run_two_processes(as_rank, {"run": Part(recipe)}, torch.float32)
    for name, tensor in first["run"].items():
        assert torch.equal(second["run"][name], tensor)
        assert tensor.isfinite().all()
    found = measured(open_images(data, DecodePolicy(channels=6)), recipe.seed)
    cfg = json.loads((recipe.folder / "backbone" / "config.json").read_text())["pretrained_cfg"]
    assert (cfg["input_size"], cfg["mean"], cfg["std"]) == ([6, 16, 16], [*found.mean], [*found.std])
