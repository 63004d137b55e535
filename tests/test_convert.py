"""Every known layout is converted whole, whatever wraps it; anything that is not whole is refused, naming what."""

from __future__ import annotations

import re
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from checkpoints import (
    LAYOUTS,
    backbone,
    haiku,
    lewel,
    lightning,
    moco,
    other,
    some,
    supcon_cifar,
    swav,
    under,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_backbones.convert import ConversionError, convert, read_checkpoint
from ssl_backbones.convert.haiku import dotted
from ssl_backbones.registry.backbones import BACKBONES
from ssl_backbones.weightless import weightless

NET = backbone()
SMALL, TINY = backbone("resnet18"), backbone("resnet8")
IN_FULL = {"MoCo v2", "LEWEL", "bare", "VISSL", "a Sequential"}
"""Layouts that are converted at the published size."""


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
    with weightless():
        other = torchvision.models.resnet50().state_dict()
    assert [key for key in other if not key.startswith("fc.")] == list(NET)


def test_the_files_have_as_many_tensors_as_the_published_ones():
    assert len(lewel(NET)["state_dict"]) == 678
    assert len(moco(NET, ["fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias"])["state_dict"]) == 646


@pytest.mark.parametrize("wrapped", [True, False], ids=["module., zip", "bare, legacy"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_every_tensor_its_place(name: str, wrapped: bool, tmp_path: Path):
    (prefix, layout), net = LAYOUTS[name], NET if wrapped and name in IN_FULL else SMALL
    content = layout(net) if wrapped else bare_of_wrappers(layout(net))
    converted = convert(write(content, tmp_path / "checkpoint.pth.tar", legacy=not wrapped))
    bare = prefix if wrapped or "inside" in name else prefix.replace("module.", "")
    assert (converted.architecture, converted.prefix) == ("resnet50" if net is NET else "resnet18", bare)
    counters = {key: torch.tensor(0) for key in net if key.endswith("tracked")} if name == "without counters" else {}
    assert same(converted.weights, net | counters)


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
    assert len(converted.left_out) == 2 + len(model.state_dict()) + 4


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
    assert converted.prefix == "res_net50/~/."
    assert "SAME padding" in converted.notes
    assert len(converted.left_out) == 4 + 2 * 53


def test_a_kernel_of_haikus_is_turned_as_its_axes_say(tmp_path: Path):
    torch.manual_seed(0)
    net = timm.create_model("resnet50", num_classes=0, layers=(1, 1, 1, 1)).state_dict()
    arrays = {key: np.ascontiguousarray(value) for key, value in haiku(net).items()}
    assert arrays["res_net50/~/initial_conv/w"].shape == (7, 7, 3, 64)
    np.savez(tmp_path / "byol.npz", **arrays)
    found = dotted(read_checkpoint(tmp_path / "byol.npz"))
    assert all(torch.equal(found[f"res_net50/~/.{key}"], net[key]) for key in net if not key.endswith("tracked"))


UNKNOWN = ("layer5.0.conv1.weight", "layer1.0.adapter.weight", "predictors.weight")


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from([key for key in TINY if not key.endswith("tracked")]))
def test_a_missing_tensor_is_named_and_nothing_loaded(name: str, key: str, tmp_path: Path):
    content = LAYOUTS[name][1]({other: value for other, value in TINY.items() if other != key})
    with pytest.raises(ConversionError) as caught:
        convert(write(content, tmp_path / "short.pth"))
    assert key in str(caught.value)
    assert "nothing was loaded" in str(caught.value)


@pytest.mark.parametrize(("name", "extra"), [*zip(LAYOUTS, cycle(UNKNOWN), strict=False)])
def test_a_tensor_of_no_known_head_in_the_network_is_refused(name: str, extra: str, tmp_path: Path):
    content = LAYOUTS[name][1]({**TINY, **some([extra])})
    with pytest.raises(ConversionError, match=r"has in excess .*" + re.escape(extra.split(".")[-2])):
        convert(write(content, tmp_path / "more.pth"))


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


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_numbers_that_are_not_finite_are_no_weights(number: float, tmp_path: Path):
    with pytest.raises(ConversionError, match=r"not finite, in bn1\.weight, so nothing was loaded"):
        convert(write({**NET, "bn1.weight": torch.full((64,), number)}, tmp_path / "diverged.pth"))


@pytest.mark.parametrize(
    "content",
    [{}, [], 3, {"state_dict": {}}, {"state_dict": [torch.ones(1)]}, {"epoch": 1}, {"model": {"a": {"b": 1}}}],
    ids=repr,
)
def test_a_file_without_named_tensors_is_refused(content: Any, tmp_path: Path):
    with pytest.raises(ConversionError, match="holds no tensors by name"):
        convert(write(content, tmp_path / "odd.pth"))


def test_a_file_without_a_network_is_refused_with_its_keys(tmp_path: Path):
    with pytest.raises(ConversionError, match=r"no part with the names of a headless ResNet.*net\.stem\.weight"):
        convert(write(some(["net.stem.weight"]), tmp_path / "mine.pth"))


SEVERAL = {
    "bare and query": ({**SMALL, **under("encoder_q.", other(SMALL))}, ["", "encoder_q."]),
    "student and teacher": (
        lightning({**under("student_backbone.", SMALL), **under("teacher_backbone.", other(SMALL))}),
        ["state_dict.student_backbone.", "state_dict.teacher_backbone."],
    ),
    "two architectures": (
        {"model": {**under("small.", backbone("resnet18")), **under("large.", NET)}},
        ["model.small.", "model.large."],
    ),
    "two averages": ({"target": SMALL, "ema": other(SMALL)}, ["target.", "ema."]),
    "one cut short": ({"a": SMALL, "b": dict(list(other(SMALL).items())[:-6])}, ["a.", "b."]),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_two_networks_are_no_guess_and_either_is_taken_by_its_prefix(name: str, tmp_path: Path):
    content, prefixes = SEVERAL[name]
    path = write(content, tmp_path / "two.pth")
    with pytest.raises(ConversionError, match="--prefix") as caught:
        convert(path)
    assert all(repr(prefix) in str(caught.value) for prefix in prefixes)
    for number, prefix in enumerate(prefixes):
        if name == "one cut short" and number:
            with pytest.raises(ConversionError, match="nothing was loaded"):
                convert(path, prefix=prefix)
            continue
        converted = convert(path, prefix=prefix)
        assert converted.prefix == prefix
        assert converted.others == (prefixes[1 - number],)
        assert len(converted.left_out) == len(read_checkpoint(path)) - len(converted.weights)


@pytest.mark.parametrize("prefix", ["momentum_backbone", "momentum_backbone.", "state_dict.momentum_backbone"])
def test_a_moving_average_is_told_of_and_taken_where_it_is_asked_for(prefix: str, tmp_path: Path):
    path = write(LAYOUTS["solo-learn"][1](SMALL), tmp_path / "solo.ckpt")
    assert "--prefix 'state_dict.momentum_backbone.' takes another network" in convert(path).rest
    assert "'state_dict.projector'" in convert(path).rest
    assert same(convert(path, prefix=prefix).weights, other(SMALL))
    for wrong in ("backbon", "", "momentum", "state_dict"):
        with pytest.raises(ConversionError, match=r"names 0 of them"):
            convert(path, prefix=wrong)


def test_two_networks_of_deepminds_are_told_apart_by_their_scope(tmp_path: Path):
    nets = {"online": NET, "target": other(NET)}
    both = {f"{scope}/{key}": value for scope, net in nets.items() for key, value in haiku(net).items()}
    np.savez(tmp_path / "both.npz", **{key: np.ascontiguousarray(value) for key, value in both.items()})
    converted = convert(tmp_path / "both.npz")
    assert (converted.prefix, converted.others) == ("online/res_net50/~/.", ("target/res_net50/~/.",))


def test_a_network_of_another_kind_is_found_by_its_name(tmp_path: Path):
    net = timm.create_model("convnext_atto", num_classes=5).state_dict()
    converted = convert(write(lightning(under("encoder.", net)), tmp_path / "next.ckpt"), "convnext_atto")
    assert same(converted.weights, timm.create_model("convnext_atto", num_classes=0).state_dict() | converted.weights)
    assert converted.left_out == ("state_dict.encoder.head.fc.weight", "state_dict.encoder.head.fc.bias")


def test_a_wrapper_round_some_keys_only_is_not_taken_off(tmp_path: Path):
    mixed = {("module." if n % 2 else "") + key: value for n, (key, value) in enumerate(NET.items())}
    with pytest.raises(ConversionError):
        convert(write(mixed, tmp_path / "mixed.pth"))


def test_a_compiled_and_wrapped_network_is_unwrapped(tmp_path: Path):
    converted = convert(write(under("module._orig_mod.", NET), tmp_path / "compiled.pth"))
    assert same(converted.weights)
