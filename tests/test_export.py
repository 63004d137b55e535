"""Saved backbones are loaded by timm, with this package and without it."""

import copy
import json
import os
import stat
from functools import cache

import pytest
import timm
import torch
from safetensors import safe_open
from timm.models import PretrainedCfg
from warm_processes import run_program, without

import ssl_backbones
from ssl_backbones.hub.bundle import write_bundle
from ssl_backbones.hub.export import BackboneError, preparation, save_backbone, save_classifier

FIELDS = {
    "input_size": (3, 96, 96),
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.3, 0.4),
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "license": "cc0-1.0",
    "tag": "photos_3ep",
    "description": "three epochs of images",
}


def trained(name: str, **kwargs):
    """A model whose statistics and counters are no longer those of a fresh one."""
    return copy.deepcopy(made(name, **kwargs))


@cache
def made(name: str, **kwargs):
    """The same, to be copied."""
    torch.manual_seed(0)
    model = timm.create_model(name, **kwargs).train()
    with torch.no_grad():
        model(torch.randn(2, model.in_chans, 32, 32))
    return model.eval()


def same(one, other) -> bool:
    one, other = one.state_dict(), other.state_dict()
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("name", "architecture"), [("resnet8_byol", "resnet8"), ("resnet18_lewel_b", "resnet18")])
def test_round_trip(name, architecture, tmp_path):
    model = trained(name)
    folder = save_backbone(model, tmp_path / "run" / "backbone", architecture, **FIELDS)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    for place in (folder, tmp_path / "run", str(folder), f"local-dir:{folder}"):
        assert same(ssl_backbones.create_model(place, pretrained=True), model)
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert same(loaded, model)
    assert loaded.num_classes == 0
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded.eval()(x), model(x))


NETWORKS = [
    ("test_vit", {}),
    ("test_vit", {"img_size": 64, "global_pool": "avg", "fc_norm": False}),
    ("test_vit3", {}),
    ("test_convnext", {"act_layer": "silu"}),
    ("test_resnet", {"act_layer": "silu", "drop_path_rate": 0.1}),
    ("test_resnet", {"in_chans": 4, "output_stride": 8}),
]
"""Networks that are not what their name alone stands for at 224 px, and one whose pooling has weights."""


@pytest.mark.parametrize(("architecture", "arguments"), NETWORKS, ids=str)
def test_a_folder_is_loaded_as_the_network_that_was_saved(architecture, arguments, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=0, **arguments).eval()
    side = arguments.get("img_size", 160)
    size = (arguments.get("in_chans", 3), side, side)
    first = save_backbone(model, tmp_path / "first", architecture, input_size=size)
    again = ssl_backbones.create_model(first, pretrained=True, num_classes=0)
    second = save_backbone(again, tmp_path / "second", architecture, **preparation(again))
    (third,) = write_bundle([str(second)], tmp_path / "bundle")
    images = torch.randn(1, *size)
    for folder in (first, second, third):
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        assert same(loaded, model)
        assert torch.equal(loaded(images), model(images))
    pool = {"test_vit": "token", "test_vit3": "map"}.get(architecture, "avg")
    assert json.loads((first / "config.json").read_text())["global_pool"] == arguments.get("global_pool", pool)


CLASSIFYING = [*NETWORKS, ("resnet8", {}), ("test_efficientnet", {}), ("test_byobnet", {"in_chans": 1})]


@pytest.mark.parametrize(("architecture", "arguments"), CLASSIFYING, ids=str)
def test_a_classifier_gives_the_logits_of_its_backbone_and_its_layer(architecture, arguments, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=0, **arguments).eval()
    side = arguments.get("img_size", 160)
    images = torch.randn(2, arguments.get("in_chans", 3), side, side)
    layer = torch.nn.Linear(model(images).shape[1], 3)
    about = {"input_size": images.shape[1:], "license": "cc-by-nc-4.0", "crop_pct": 0.9}
    folder = save_classifier(model, layer, ["a bag", "hat"], tmp_path / "classifier", architecture, **about)
    for loaded in (
        timm.create_model(f"local-dir:{folder}", pretrained=True).eval(),
        ssl_backbones.create_model(folder, pretrained=True).eval(),
    ):
        assert torch.equal(loaded(images), layer(model(images)))
        cfg = loaded.pretrained_cfg
        assert (list(cfg["label_names"]), cfg["num_classes"]) == (["a bag", "hat"], 3)
        assert (cfg["license"], cfg["crop_pct"]) == ("cc-by-nc-4.0", 0.9)
    assert same(ssl_backbones.create_model(folder, pretrained=True, num_classes=0), model)
    assert model.num_classes == 0


def test_a_classifier_that_a_folder_cannot_hold_is_refused(tmp_path):
    out, layer = tmp_path / "out", torch.nn.Linear(64, 2)
    model = timm.create_model("resnet8", num_classes=0)
    with pytest.raises(BackboneError, match="label_names has 3 names, but the layer tells 2 classes apart"):
        save_classifier(model, layer, ["a", "b", "c"], out, "resnet8")
    for other in (torch.nn.Linear(64, 2, bias=False), torch.nn.Linear(32, 2)):
        with pytest.raises(BackboneError, match=r"'resnet8' ends in Linear\(in_features=64.* and not in Linear\("):
            save_classifier(model, other, [], out, "resnet8")
    distilled = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=0, depth=1)
    with pytest.raises(BackboneError, match="ends in"):
        save_classifier(distilled, torch.nn.Linear(192, 2), [], out, "deit_tiny_distilled_patch16_224")
    assert not out.exists()


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("architecture", ["resnet8", "resnet18"])
def test_a_preparation_is_for_the_channels_that_the_network_takes(architecture, channels, tmp_path):
    model = timm.create_model(architecture, num_classes=0, in_chans=channels)
    saved = preparation(timm.create_model(f"local-dir:{save_backbone(model, tmp_path / 'out', architecture)}"))
    assert (saved["input_size"][0], len(saved["mean"]), len(saved["std"])) == (channels, channels, channels)
    with pytest.raises(BackboneError, match=rf"^input_size is \(4, 32, 32\), but .* images of {channels} channels"):
        save_backbone(model, tmp_path / "other", architecture, input_size=(4, 32, 32))
    with pytest.raises(BackboneError, match=r"^std has 2 values, but must have one, or one for each of"):
        save_backbone(model, tmp_path / "other", architecture, std=(0.5, 0.5))
    assert not (tmp_path / "other").exists()


def test_a_network_that_a_folder_cannot_name_is_refused(tmp_path):
    model = timm.create_model("test_resnet", num_classes=0, act_layer=torch.nn.SiLU)
    with pytest.raises(BackboneError, match=r"as another network, \d+ layers of which differ, first 'act1'"):
        save_backbone(model, tmp_path / "out", "test_resnet")
    vit = timm.create_model("test_vit", num_classes=0)
    with pytest.raises(BackboneError, match="'pos_embed'"):
        save_backbone(vit, tmp_path / "out", "test_vit", input_size=(3, 64, 64))
    assert not (tmp_path / "out").exists()


def test_the_configuration_is_ours(tmp_path):
    save_backbone(trained("resnet18_byol"), tmp_path, "resnet18", **FIELDS)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == "resnet18"
    assert "model_args" not in config
    assert (config["num_classes"], config["num_features"]) == (0, 512)
    cfg = PretrainedCfg(**config["pretrained_cfg"])
    for field, value in FIELDS.items():
        assert json.dumps(getattr(cfg, field)) == json.dumps(value)
    assert cfg.pool_size == [3, 3]
    text = (tmp_path / "config.json").read_text()
    assert "a1_in1k" not in text
    assert "2110.00476" not in text
    data = timm.data.resolve_data_config(model=ssl_backbones.create_model(tmp_path))
    assert (tuple(data["input_size"]), data["crop_pct"], data["interpolation"]) == ((3, 96, 96), 0.9, "bicubic")
    assert tuple(data["mean"]) == FIELDS["mean"]


@pytest.mark.parametrize("architecture", ["resnet8", "resnet18"])
def test_loaded_for_features_one_channel_and_a_new_head(architecture, tmp_path):
    model = trained(architecture, num_classes=0)
    save_backbone(model, tmp_path, architecture)
    x = torch.randn(1, 3, 64, 64)
    features = ssl_backbones.create_model(tmp_path, pretrained=True, features_only=True).eval()(x)
    torch.testing.assert_close(features, model.forward_intermediates(x, intermediates_only=True))
    grey = ssl_backbones.create_model(tmp_path, pretrained=True, in_chans=1)
    torch.testing.assert_close(grey.conv1.weight, model.conv1.weight.sum(1, keepdim=True))
    headed = ssl_backbones.create_model(tmp_path, pretrained=True, num_classes=10)
    assert torch.equal(headed.layer3[0].conv1.weight, model.layer3[0].conv1.weight)
    assert headed.fc.out_features == 10


def test_channels_last_and_half_precision(tmp_path):
    model = trained("resnet18_byol")
    wanted = {key: value.clone() for key, value in model.state_dict().items()}
    save_backbone(model.to(memory_format=torch.channels_last), tmp_path, "resnet18")
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).state_dict()
    assert all(torch.equal(loaded[key], wanted[key]) for key in wanted)
    save_backbone(model.to(torch.bfloat16), tmp_path, "resnet18")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.get_tensor("conv1.weight").dtype == torch.bfloat16


def test_a_backbone_of_one_channel(tmp_path):
    model = trained("resnet8", in_chans=1)
    save_backbone(model, tmp_path, "resnet8", input_size=(1, 28, 28), mean=(0.5,), std=(0.2,))
    loaded = ssl_backbones.create_model(tmp_path, pretrained=True)
    assert loaded.in_chans == 1
    assert same(loaded, model)
    assert loaded.pretrained_cfg["pool_size"] == [7, 7]


def test_the_same_weights_give_the_same_bytes(tmp_path):
    model = trained("resnet8")
    for name in ("one", "other"):
        save_backbone(model, tmp_path / name, "resnet8", **FIELDS)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o007, 0o077])
def test_files_have_the_mode_that_the_umask_gives(mask, tmp_path):
    before = os.umask(mask)
    try:
        save_backbone(trained("resnet8"), tmp_path, "resnet8")
    finally:
        os.umask(before)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_a_failed_write_leaves_the_old_files(tmp_path, monkeypatch):
    old = trained("resnet8")
    save_backbone(old, tmp_path, "resnet8")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_backbone(timm.create_model("resnet8"), tmp_path, "resnet8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert same(ssl_backbones.create_model(tmp_path, pretrained=True), old)


@pytest.mark.parametrize(
    ("model", "architecture", "reason"),
    [
        ("resnet8", "resnet20", "headless 'resnet20'"),
        ("resnet8", "resnet8_cifar", "timm knows no architecture 'resnet8_cifar'"),
        ("resnet18", "resnet18.a1_in1k", "timm knows no architecture"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(model, architecture, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        save_backbone(timm.create_model(model, num_classes=0), tmp_path / "out", architecture)
    assert not (tmp_path / "out").exists()


def test_a_head_or_a_wrapper_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"fc\.bias"):
        save_backbone(timm.create_model("resnet8", num_classes=3), tmp_path, "resnet8")
    with pytest.raises(ValueError, match="without head or wrapper"):
        save_backbone(torch.nn.DataParallel(timm.create_model("resnet8")), tmp_path, "resnet8")


@pytest.mark.parametrize("kwargs", [{}, {"num_classes": 10}, {"features_only": True}, {"in_chans": 1}], ids=str)
@pytest.mark.parametrize("architecture", ["resnet8", "resnet18"])
def test_an_incomplete_folder_is_refused(architecture, kwargs, tmp_path):
    from safetensors.torch import load_file, save_file

    save_backbone(trained(architecture, num_classes=0), tmp_path, architecture)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["layer2.0.conv1.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"layer2\.0\.conv1\.weight"):
        ssl_backbones.create_model(tmp_path, pretrained=True, **kwargs)


def test_plain_timm_loads_it_without_this_package(tmp_path):
    model = trained("resnet18_lewel_b")
    save_backbone(model, tmp_path, "resnet18", **FIELDS)
    torch.save(model.state_dict(), tmp_path / "wanted.pt")
    script = (
        "import sys, timm, torch\n"
        "folder = sys.argv[1]\n"
        "wanted = torch.load(folder + '/wanted.pt', weights_only=True)\n"
        "loaded = timm.create_model('local-dir:' + folder, pretrained=True).state_dict()\n"
        "assert list(loaded) == list(wanted) and all(torch.equal(loaded[key], wanted[key]) for key in wanted)\n"
        "maps = timm.create_model('local-dir:' + folder, pretrained=True, features_only=True, output_stride=8)\n"
        "assert maps.feature_info.reduction() == [2, 4, 8, 8, 8]\n"
        "grey = timm.create_model('local-dir:' + folder, pretrained=True, in_chans=1)\n"
        "assert torch.equal(grey.conv1.weight, wanted['conv1.weight'].sum(1, keepdim=True))\n"
        "assert sys.modules['ssl_backbones'] is None"
    )
    done = run_program(without("ssl_backbones") + script, tmp_path)
    assert done.returncode == 0, done.stderr
