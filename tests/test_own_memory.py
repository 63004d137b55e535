"""Memory of the recipes for one's own images: what is counted, what may be filled, and what a paper's recipe says."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import timm
import torch
from runs import image_folder

import ssl_backbones
from ssl_backbones import recipes
from ssl_backbones.data import open_images
from ssl_backbones.models.activations import bytes_of_a_pixel
from ssl_backbones.recipes import facts as counted
from ssl_backbones.recipes.command_line import read_recipe
from ssl_backbones.recipes.facts import Facts
from ssl_backbones.recipes.own import ARCHS, settled
from ssl_backbones.recipes.ways_out import take_own
from ssl_backbones.train import cache
from ssl_backbones.train import settle as settle_module
from ssl_backbones.train.guards import memory_advice
from ssl_backbones.train.settle import fillable_memory, shorter_side
from ssl_backbones.train.step_memory import Footprint, parts_within


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("arch", ARCHS)
def test_the_bytes_of_a_pixel_are_those_that_autograd_keeps(arch: str, device: str) -> None:
    with torch.device(device):
        backbone = ssl_backbones.create_model(f"{arch}_byol", num_classes=0)
    assert counted.COUNTED[arch][0] == pytest.approx(bytes_of_a_pixel(backbone), rel=0.05)


@pytest.mark.parametrize("arch", ["convnext_atto", "resnet26", "efficientnet_b0"])
def test_any_convolutional_network_goes_with_the_recipes_for_ones_own_images(arch: str) -> None:
    recipe = read_recipe(["resnet18_byol.own", "--model", f"{arch}_byol"], "pretrain", None)
    made = settled(recipe, Facts(300, 128, 12e9))
    assert made.model == f"{arch}_byol"
    per_pixel, trained = counted.counts_of(arch)
    backbone = timm.create_model(arch, num_classes=0)
    assert per_pixel == bytes_of_a_pixel(backbone)
    assert trained > sum(weight.numel() for weight in backbone.parameters())


def test_memory_of_a_transformer_is_refused_in_a_sentence() -> None:
    recipe = read_recipe(["resnet18_byol.own", "--model", "vit_tiny_patch16_224_byol"], "pretrain", None)
    with pytest.raises(ValueError, match="take a convolutional network, such as a ResNet"):
        settled(recipe, Facts(300, 128, 12e9))


def test_a_batch_beyond_memory_names_the_recipe_of_one_s_own() -> None:
    recipe = recipes.get("resnet50_lewel_b.in1k_400ep")
    method = recipe.method.build(ssl_backbones.create_model("resnet50", num_classes=0))
    assert memory_advice(recipe, method, "fp32").endswith(
        "or take resnet50_lewel_b.own, whose settings follow from the images and the machine"
    )
    assert take_own(recipes.get("resnet8_byol.own")) == ""


def test_the_facts_of_images_and_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shorter_side(open_images(str(image_folder(tmp_path / "photos", 6)))) == 25
    (tmp_path / "memory.max").write_text("1000000000\n")
    monkeypatch.setattr(settle_module, "LIMIT", tmp_path / "memory.max")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert fillable_memory(torch.device("cpu")) == 0.25e9
    (tmp_path / "memory.max").write_text("max\n")
    assert fillable_memory(torch.device("cpu")) > 0.25e9


@pytest.mark.parametrize(
    ("free", "reserved", "taken", "left", "parts"),
    [(80, 0, 0, 64, 1), (60, 15, 5, 56, 1), (20, 10, 0, 24, 2), (25, 10, 10, 20, 2), (5, 0, 0, 4, 8)],
)
def test_a_gpu_that_others_use_is_filled_to_a_share_of_what_is_free(
    free: int, reserved: int, taken: int, left: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In GB, of 80, of which this process has reserved and taken some; and the parts of a batch of 32 GB."""
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: taken * 10**9)
    assert fillable_memory(device) == left * 1e9
    assert cache.free_memory(device) == (free + reserved - taken) * 1e9
    recipe: Any = Mock(batch_size=256)
    assert parts_within(recipe, Footprint(0.0, 32e9 / 256, "fp32"), fillable_memory(device), 1) == parts
