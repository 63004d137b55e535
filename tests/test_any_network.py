"""Networks of timm's that nobody entered anywhere: pretrained, evaluated, loaded by plain timm; or refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import runs
import timm
import torch
from runs import image_folder, run, state, tiny
from scripts import script

import ssl_backbones
from ssl_backbones import PretrainedWeightsError
from ssl_backbones.methods import BYOLConfig, LewelMConfig, MethodConfig, MoCoV2Config
from ssl_backbones.models.backbone import freeze_unused
from ssl_backbones.recipes.settings import OptimizerConfig
from ssl_backbones.train.prepare import UnfitError
from ssl_backbones.weightless import weightless

NETWORKS: dict[str, type[MethodConfig]] = {
    "wide_resnet50_2_byol": BYOLConfig,
    "convnext_tiny_lewel_m": LewelMConfig,
    "resnet50d_moco_v2": MoCoV2Config,
}
SMALLER: dict[str, type[MethodConfig]] = {"convnext_atto_lewel_m": LewelMConfig, "resnet10t_moco_v2": MoCoV2Config}
GENTLE = {"optimizer": OptimizerConfig("sgd", 0.05)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks") / "photos"
    image_folder(folder / "train", 32)
    image_folder(folder / "val", 8)
    return folder


@pytest.mark.parametrize(
    ("model", "kind"), [*SMALLER.items(), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in NETWORKS.items())]
)
def test_any_network_is_pretrained_evaluated_and_loaded_by_plain_timm(
    model: str, kind: type[MethodConfig], data: Path, tmp_path: Path
) -> None:
    arch = model.removesuffix(f"_{kind.name}")
    recipe = tiny(kind, data / "train", tmp_path / "run", model=model, max_steps=2, batch_size=8, size=32, **GENTLE)
    folder = run(recipe).path
    assert json.loads((folder / "results.json").read_text())["steps"] == 2

    config = json.loads((folder / "backbone" / "config.json").read_text())
    assert config["architecture"] == arch
    with weightless():
        plain = timm.create_model(arch)
    assert {name: config["pretrained_cfg"][name] for name in ("first_conv", "classifier")} == {
        name: plain.default_cfg[name] for name in ("first_conv", "classifier")
    }
    loaded = timm.create_model(f"local-dir:{folder / 'backbone'}", pretrained=True)
    trained = state(folder)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, trained[f"method/backbone.{name}"]), name
    assert timm.create_model(f"local-dir:{folder / 'backbone'}", pretrained=True, num_classes=5).num_classes == 5

    runs.forget()
    script("evaluate", ["knn", str(folder), "--data", str(data), "--workers", "0", "--out", str(tmp_path / "knn")])
    runs.forget()
    results = json.loads((tmp_path / "knn" / "results.json").read_text())
    assert results["settings"]["size"] == 32
    assert {number["of"] for number in results["numbers"].values()} == {results["validation"]["images"]} == {8}


@pytest.mark.parametrize("size", [16, 224])
def test_a_transformer_is_refused_in_a_sentence(size: int, data: Path, tmp_path: Path) -> None:
    recipe = tiny(BYOLConfig, data / "train", tmp_path / "run", model="vit_small_patch16_224_byol", size=size)
    with pytest.raises(UnfitError, match=r"needs feature maps \(B, 384, h, w\), and a VisionTransformer gives"):
        run(recipe)
    assert not (tmp_path / "run").exists()


def test_images_that_are_too_small_for_a_network_are_refused_in_a_sentence(data: Path, tmp_path: Path) -> None:
    recipe = tiny(BYOLConfig, data / "train", tmp_path / "run", model="convnext_atto_byol", size=16)
    with pytest.raises(UnfitError, match=r"^a ConvNeXt makes no feature map of images of 16 px \(.*\): give it larger"):
        run(recipe)


def test_a_network_whose_output_would_stay_untrained_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a MobileNetV3's output passes through conv_head\.weight"):
        freeze_unused(ssl_backbones.create_model("mobilenetv3_small_100_byol"), 32)


def test_what_no_map_depends_on_is_frozen_and_nothing_else() -> None:
    with weightless():
        convnext = ssl_backbones.create_model("convnext_atto_byol")
    assert freeze_unused(convnext, 32) == ["head.norm.weight", "head.norm.bias"]
    frozen = {name for name, parameter in convnext.named_parameters() if not parameter.requires_grad}
    assert frozen == {"head.norm.weight", "head.norm.bias"}
    for name in ("resnet8_byol", "resnet18_byol", "resnet26d_byol", "densenet121_byol", "regnety_002_byol"):
        with weightless():
            network = ssl_backbones.create_model(name)
        assert freeze_unused(network, 32) == []


@pytest.mark.parametrize("model", NETWORKS)
def test_a_name_of_any_network_is_made_and_described(model: str) -> None:
    with weightless():
        made = ssl_backbones.create_model(model)
        with_head = ssl_backbones.create_model(model, num_classes=7)
        maps = ssl_backbones.create_model(model, features_only=True)
    assert (made.num_classes, with_head.num_classes) == (0, 7)
    assert maps.feature_info.reduction()[-1] == 32
    assert made.pretrained_cfg["mean"] == timm.data.IMAGENET_DEFAULT_MEAN
    assert made.pretrained_cfg["interpolation"] == "bilinear"
    described = ssl_backbones.describe(model)
    assert (described.name, described.backbone) == (model, model.removesuffix(f"_{NETWORKS[model].name}"))
    assert described.method
    with pytest.raises(PretrainedWeightsError, match=rf"no weights are published for '{model}'.*pretrain it"):
        ssl_backbones.create_model(model, pretrained=True)


def test_no_network_starts_with_a_norm_at_zero_that_would_not_as_a_resnet_of_ours() -> None:
    assert all((block.bn3.weight == 1).all() for block in ssl_backbones.create_model("resnet26d_byol").layer1)


def test_a_model_and_a_method_of_different_names_do_not_fit(data: Path, tmp_path: Path) -> None:
    recipe = tiny(BYOLConfig, data / "train", tmp_path / "run", model="wide_resnet50_2_byol")
    with pytest.raises(ValueError, match="model is 'convnext_tiny_moco_v2', but must be convnext_tiny_byol"):
        dataclasses.replace(recipe, model="convnext_tiny_moco_v2")
