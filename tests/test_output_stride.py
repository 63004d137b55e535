"""Feature maps finer than the network's own: the same weights, trained, left and loaded with that output stride."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from conftest import ROOT
from runs import run, tiny
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from whole_runs import data

from ssl_backbones.evaluate.model import open_model
from ssl_backbones.evaluate.segmentation.fcn import dilated
from ssl_backbones.methods import BYOLConfig, LewelBConfig
from ssl_backbones.methods.from_run import method_from_run
from ssl_backbones.models.backbone import feature_map, modes_kept, weights_sha256
from ssl_backbones.recipes.facts import counts_of
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.train.beginning import Beginning, begin

__all__ = ["data"]

IMAGES = torch.zeros(2, 3, 64, 64)


def positions(backbone: nn.Module) -> tuple[int, ...]:
    with modes_kept(backbone):
        return tuple(feature_map(backbone.eval(), IMAGES).shape[-2:])


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run of two steps of LEWEL_B at output stride 16, ended."""
    out = tmp_path_factory.mktemp("run") / "run"
    recipe = tiny(LewelBConfig, data, out, model="resnet18_lewel_b", size=64, output_stride=16, max_steps=2)
    run(recipe)
    return recipe


def test_whoever_loads_it_gets_the_maps_that_it_was_trained_with(done: Recipe) -> None:
    config = json.loads((done.folder / "backbone" / "config.json").read_text())
    assert config["model_args"] == {"output_stride": 16}
    assert config["pretrained_cfg"]["pool_size"] == [4, 4]
    plain = timm.create_model(f"local-dir:{done.folder / 'backbone'}", pretrained=True)
    opened, trained = open_model(str(done.folder)).network, method_from_run(done.folder).published
    drawn = open_model(str(done.folder), random=True).network
    assert [positions(network) for network in (plain, opened, trained, drawn)] == [(4, 4)] * 4
    assert weights_sha256(plain) == weights_sha256(opened) == weights_sha256(trained) != weights_sha256(drawn)
    finest = timm.create_model(f"local-dir:{done.folder / 'backbone'}", pretrained=True, output_stride=8)
    assert positions(finest) == (8, 8), "who asks for another stride has it"
    assert [tuple(part.shape[-2:]) for part in dilated(str(done.folder), True, 8)(IMAGES)] == [(8, 8), (8, 8)]


def test_a_run_of_the_usual_stride_begins_with_its_weights(done: Recipe, data: Path, tmp_path: Path) -> None:
    usual = tiny(BYOLConfig, data, tmp_path / "run", model="resnet18_byol", init=str(done.folder))
    begun = begin(usual).backbone()
    assert positions(begun) == (2, 2)
    assert weights_sha256(begun) == weights_sha256(method_from_run(done.folder).published)
    assert positions(begin(replace(usual, output_stride=8)).backbone()) == (8, 8)


def test_the_weights_drawn_are_those_of_any_stride(data: Path, tmp_path: Path) -> None:
    usual = tiny(BYOLConfig, data, tmp_path / "run", model="resnet18_byol")
    drawn = [Beginning(replace(usual, output_stride=stride), None).backbone() for stride in (0, 8, 16, 32)]
    assert len({weights_sha256(backbone) for backbone in drawn}) == 1
    assert [positions(backbone)[0] for backbone in drawn] == [2, 8, 4, 2]
    small = replace(usual, model="resnet8_byol", output_stride=2)
    assert positions(Beginning(small, None).backbone()) == (32, 32)


@pytest.mark.parametrize(
    ("arch", "stride"), [("resnet18", 4), ("convnext_atto", 2), ("vit_tiny_patch16_224", 16), ("densenet121", 16)]
)
def test_a_stride_that_a_network_cannot_have_is_refused(arch: str, stride: int, data: Path, tmp_path: Path) -> None:
    recipe = tiny(BYOLConfig, data, tmp_path / "run", model=f"{arch}_byol", output_stride=stride)
    with pytest.raises(
        ValueError, match=rf"output_stride is {stride}, which {arch} cannot have \(.+\): .*leave it out"
    ):
        Beginning(recipe, None).backbone()


def test_finer_maps_take_more_memory() -> None:
    own, trained = counts_of("resnet18")
    finer, same = counts_of("resnet18", 16)
    assert 1.1 * own < finer < 2 * own
    assert same < trained * 3
    assert counts_of("resnet18", 32)[0] == pytest.approx(own, rel=0.05)


@pytest.mark.parametrize(("arch", "told"), [("resnet18", "{} times the operations"), ("resnet50", "{} for\nResNet-50")])
def test_the_guide_tells_what_finer_maps_cost(arch: str, told: str) -> None:
    counted = []
    for stride in (32, 16):
        with torch.device("meta"), FlopCounterMode(display=False) as operations:
            timm.create_model(arch, num_classes=0, output_stride=stride).eval()(torch.zeros(1, 3, 64, 64))
        counted.append(operations.get_total_flops())
    assert told.format(f"{counted[1] / counted[0]:.2f}") in (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
