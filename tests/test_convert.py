"""Every known layout is converted whole, whatever wraps it; anything that is not whole is refused, naming what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from checkpoints import LAYOUTS, backbone, haiku, lewel, moco, some, supcon_cifar, swav, under
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_backbones.convert import LAYOUTS as KNOWN
from ssl_backbones.convert import ConversionError, convert, read_checkpoint
from ssl_backbones.convert.haiku import HAIKU
from ssl_backbones.convert.layout import Prefixed
from ssl_backbones.registry.backbones import BACKBONES

NET = backbone()


def write(content: Any, path: Path, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def bare_of_wrappers(content: Any) -> Any:
    """The same without `module.`, as some people save it."""
    if not isinstance(content, dict):
        return content
    return {str(key).removeprefix("module."): bare_of_wrappers(value) for key, value in content.items()}


def same(weights: dict[str, torch.Tensor], net: dict[str, torch.Tensor] = NET) -> bool:
    return list(weights) == list(net) and all(torch.equal(weights[key], net[key]) for key in net)


def test_the_backbone_has_the_keys_of_the_reference():
    assert len(NET) == 318
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        other = torchvision.models.resnet50().state_dict()
    assert [key for key in other if not key.startswith("fc.")] == list(NET)


def test_the_files_have_as_many_tensors_as_the_published_ones():
    assert len(lewel(NET)["state_dict"]) == 678
    assert len(moco(NET, ["fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias"])["state_dict"]) == 646


@pytest.mark.parametrize(("wrapped", "legacy"), [(True, False), (False, True)], ids=["module., zip", "bare, legacy"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_every_tensor_its_place(name: str, wrapped: bool, legacy: bool, tmp_path: Path):
    label, layout = LAYOUTS[name]
    content = layout(NET) if wrapped else bare_of_wrappers(layout(NET))
    converted = convert(write(content, tmp_path / "checkpoint.pth.tar", legacy))
    assert (converted.architecture, converted.layout) == ("resnet50", label)
    wanted = NET if name != "without counters" else NET | {k: torch.tensor(0) for k in NET if k.endswith("tracked")}
    assert same(converted.weights, wanted)


@pytest.mark.parametrize("architecture", ["resnet18", "resnet34", "resnet101", "resnet8", "resnet32"])
def test_the_architecture_is_recognised(architecture: str, tmp_path: Path):
    net = backbone(architecture)
    assert architecture in BACKBONES
    converted = convert(write(swav(net), tmp_path / "swav.pth"))
    assert converted.architecture == architecture
    assert same(converted.weights, net)


def test_what_is_converted_computes_what_was_trained(tmp_path: Path):
    torch.manual_seed(0)
    model, images = timm.create_model("resnet18", num_classes=0).eval(), torch.randn(1, 3, 64, 64)
    converted = convert(write(moco(model.state_dict(), ["fc.weight", "fc.bias"]), tmp_path / "moco.pth"))
    loaded = timm.create_model("resnet18", num_classes=0).eval()
    loaded.load_state_dict(converted.weights)
    assert torch.equal(loaded(images), model(images))
    assert len(converted.heads) == 2 + len(model.state_dict()) + 4


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_deepminds_arrays_are_converted_and_the_padding_told(suffix: str, tmp_path: Path):
    path, arrays = tmp_path / f"byol{suffix}", haiku(NET)
    if suffix == ".npz":
        np.savez(path, **{key: np.ascontiguousarray(value) for key, value in arrays.items()})
    else:
        from safetensors.numpy import save_file

        save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, path)
    converted = convert(path)
    assert same(converted.weights, NET | {key: torch.tensor(0) for key in NET if key.endswith("tracked")})
    assert converted.layout == "DeepMind's BYOL"
    assert "SAME padding" in converted.notes
    assert len(converted.heads) == 4 + 2 * 53


def test_a_kernel_of_haikus_is_turned_as_its_axes_say(tmp_path: Path):
    torch.manual_seed(0)
    net = timm.create_model("resnet50", num_classes=0, layers=(1, 1, 1, 1)).state_dict()
    arrays = {key: np.ascontiguousarray(value) for key, value in haiku(net).items()}
    assert arrays["res_net50/~/initial_conv/w"].shape == (7, 7, 3, 64)
    np.savez(tmp_path / "byol.npz", **arrays)
    found = HAIKU.split(read_checkpoint(tmp_path / "byol.npz"))
    assert found is not None
    assert all(torch.equal(found.backbone[key], net[key]) for key in net if not key.endswith("tracked"))


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from([key for key in NET if not key.endswith("tracked")]))
def test_a_missing_tensor_is_named_and_nothing_loaded(name: str, key: str, tmp_path: Path):
    content = LAYOUTS[name][1]({other: value for other, value in NET.items() if other != key})
    with pytest.raises(ConversionError) as caught:
        convert(write(content, tmp_path / "short.pth"))
    assert key in str(caught.value)
    assert "nothing was loaded" in str(caught.value)


@pytest.mark.parametrize("extra", ["projector.0.weight", "layer5.0.conv1.weight", "fc.9.weight", "predictors.weight"])
def test_a_tensor_of_no_known_head_is_refused(extra: str, tmp_path: Path):
    content = swav(NET) | some([f"module.{extra}"])
    with pytest.raises(ConversionError, match=extra):
        convert(write(content, tmp_path / "swav.pth"))
    content = moco(NET, ["fc.weight", "fc.bias"])
    content["state_dict"] |= some([f"module.{extra}"])
    with pytest.raises(ConversionError, match=extra):
        convert(write(content, tmp_path / "moco.pth"))


def test_a_key_that_only_begins_like_a_head_is_not_taken_for_one(tmp_path: Path):
    content = lewel(NET)
    content["state_dict"] |= some(["module.predictor_other.weight", "module.target_network.weight"])
    with pytest.raises(ConversionError, match=r"predictor_other\.weight, target_network\.weight belong neither"):
        convert(write(content, tmp_path / "lewel.pth"))
    with pytest.raises(ValueError, match="must end in a dot"):
        Prefixed("mine", "encoder")


def test_another_architecture_is_refused(tmp_path: Path):
    path = write(swav(backbone("resnet18")), tmp_path / "swav.pth")
    with pytest.raises(ConversionError, match=r"does not fill a headless resnet50.*lacks .*layer1\.0\.conv3\.weight"):
        convert(path, "resnet50")
    small = {**NET, "conv1.weight": torch.zeros(64, 3, 3, 3)}
    with pytest.raises(ConversionError, match=r"conv1\.weight \(64, 3, 3, 3\) for \(64, 3, 7, 7\)"):
        convert(write(supcon_cifar(small), tmp_path / "cifar.pth"))


def test_whole_numbers_are_no_weights(tmp_path: Path):
    spoilt = {**NET, "bn1.weight": torch.zeros(64, dtype=torch.int8)}
    with pytest.raises(ConversionError, match=r"another type than floats bn1\.weight"):
        convert(write(spoilt, tmp_path / "quantised.pth"))


@pytest.mark.parametrize(
    "content",
    [{}, [], 3, {"state_dict": {}}, {"state_dict": [torch.ones(1)]}, {"epoch": 1}, {"model": {"a": {"b": 1}}}],
    ids=repr,
)
def test_a_file_without_named_tensors_is_refused(content: Any, tmp_path: Path):
    with pytest.raises(ConversionError, match="holds no tensors by name"):
        convert(write(content, tmp_path / "odd.pth"))


def test_an_unknown_layout_is_refused_with_those_that_are_known(tmp_path: Path):
    with pytest.raises(ConversionError, match="no known layout") as caught:
        convert(write(under("my_net.", NET), tmp_path / "mine.pth"))
    assert all(layout.label in str(caught.value) for layout in KNOWN)


def test_a_second_backbone_beside_the_first_is_refused(tmp_path: Path):
    content = moco(NET, ["fc.weight", "fc.bias"])
    content["state_dict"] |= under("module.", NET)
    with pytest.raises(ConversionError, match=r"conv1\.weight, .* belong neither|encoder_q"):
        convert(write(content, tmp_path / "two.pth"))


def test_a_wrapper_round_some_keys_only_is_not_taken_off(tmp_path: Path):
    mixed = {("module." if n % 2 else "") + key: value for n, (key, value) in enumerate(NET.items())}
    with pytest.raises(ConversionError):
        convert(write(mixed, tmp_path / "mixed.pth"))


def test_a_compiled_and_wrapped_network_is_unwrapped(tmp_path: Path):
    converted = convert(write(under("module._orig_mod.", NET), tmp_path / "compiled.pth"))
    assert same(converted.weights)
