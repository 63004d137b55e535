"""A config.json from others is checked before anything is built: one sentence, within bounds of time and memory."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from runs import image_folder

import ssl_backbones
from ssl_backbones.catalogue import trial
from ssl_backbones.catalogue.configs import read_config
from ssl_backbones.commands import run
from ssl_backbones.hub.export import save_backbone

ARGUMENTS: dict[str, Any] = {
    "another key": {"colour": 3},
    "a key of the factory": {"pretrained": True},
    "the description itself": {"pretrained_cfg": {"file": "/etc/passwd"}},
    "an overlay": {"pretrained_cfg_overlay": {"file": "/etc/passwd"}},
    "a size that it has not": {"img_size": 32},
    "layers none": {"layers": None},
    "layers a number": {"layers": 3},
    "layers a text": {"layers": "1111"},
    "layers empty": {"layers": []},
    "layers negative": {"layers": [-1, -1, -1, -1]},
    "layers of texts": {"layers": ["1", "1", "1", "1"]},
    "layers by the thousand": {"layers": [1000, 1000, 1000, 1000]},
    "layers by the billion": {"layers": [10**9] * 4},
    "a thousand layers": {"layers": [1] * 1001},
    "channels beyond memory": {"channels": [2**20] * 4},
    "channels none": {"channels": [0, 0, 0, 0]},
    "channels infinite": {"in_chans": 10**15},
    "channels negative": {"in_chans": -3},
    "channels a text": {"in_chans": "rgb"},
    "channels many": {"in_chans": 2**20},
    "classes of terabytes": {"num_classes": 10**12},
    "classes a text": {"num_classes": "ten"},
    "pooling unknown": {"global_pool": "deepest"},
    "pooling a number": {"global_pool": 3},
    "a block by name": {"block": "Bottleneck"},
    "parts alone": {"features_only": True, "out_indices": [0]},
    "parts that it has not": {"features_only": True, "out_indices": [99]},
    "no number": {"drop_rate": "often"},
    "nested": {"layers": [[[[1]]]]},
    "a long text": {"global_pool": "x" * 10_000},
}
"""Arguments that are none of a ResNet-8's, or not of one that the weights beside them could fill."""

DESCRIBED: dict[str, Any] = {
    "fixed_input_size": [True, 1, "yes", None, [3]],
    "num_classes": [10**12, 1.5, "ten", None, [10], True],
    "input_size": [[3, 10**9, 10**9], [3, 0, 32], [32, 32], 32, "32", [3, 32.5, 32], [True, 32, 32], None, []],
    "mean": [[], [-1, 0, 0], ["0.5"], [True], 0.5, None, [0.5, 0.5]],
    "std": [[], [0, 1, 1], ["1"], 1, None, [0.1]],
    "crop_pct": [0, -1, 3, "all", [1], 1e300],
    "interpolation": ["magic", 3, None, ["bicubic"], "x" * 10_000],
    "first_conv": [3, {"a": 1}],
    "classifier": [3, {"a": 1}],
    "license": [3, ["mit"]],
    "description": [3, {"a": 1}],
    "colour": [3],
}
"""Fields of pretrained_cfg with values that none of them has."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a backbone as a run leaves it."""
    folder = tmp_path_factory.mktemp("foreign") / "run" / "backbone"
    return save_backbone(ssl_backbones.create_model("resnet8", num_classes=0), folder, "resnet8")


@pytest.fixture
def changed(made: Path) -> Callable[..., Path]:
    """The folder with its config.json changed; it is put back after the test."""
    path = made / "config.json"
    sound = path.read_text()

    def change(described: dict[str, Any] | None = None, **fields: Any) -> Path:
        config = json.loads(sound)
        config["pretrained_cfg"] |= described or {}
        path.write_text(json.dumps(config | fields))
        return made

    yield change  # type: ignore[misc]
    path.write_text(sound)


ASKED: dict[str, Callable[[Path], object]] = {
    "weights": lambda folder: ssl_backbones.create_model(folder, pretrained=True),
    "random": lambda folder: ssl_backbones.create_model(folder),
    "describe": ssl_backbones.describe,
}


def peak() -> int:
    """The most bytes of memory that this process has had, which Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def refused(folder: Path, *asked: str) -> list[str]:
    """The sentences in which the folder is refused, soon and without taking memory."""
    told = []
    before, began = peak(), time.monotonic()
    for name in asked or ASKED:
        with pytest.raises(ssl_backbones.PretrainedWeightsError) as caught:
            ASKED[name](folder)
        told.append(str(caught.value))
        assert "\n" not in told[-1]
        assert len(told[-1]) < 700
        assert "config.json cannot be read (" in told[-1]
    assert time.monotonic() - began < 20
    assert peak() - before < 200_000_000
    return told


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_of_another_network_are_refused(name: str, changed: Callable[..., Path]) -> None:
    config = changed(model_args=ARGUMENTS[name])
    asked = [] if "classes" not in name else ["weights", "random"]  # a description builds no head
    assert refused(config, *asked)


@pytest.mark.parametrize("field", DESCRIBED)
def test_values_that_no_model_has_are_refused(field: str, changed: Callable[..., Path]) -> None:
    for value in DESCRIBED[field]:
        assert all(field in told or "timm" in told for told in refused(changed({field: value})))


def test_a_folder_without_weights_is_held_to_timms_own_network(made: Path, tmp_path: Path) -> None:
    for layers, fits in (([1, 1, 1, 1], True), ([40, 40, 40, 40], False)):
        config = json.loads((made / "config.json").read_text()) | {"architecture": "resnet18"}
        config["pretrained_cfg"] |= {"input_size": [3, 64, 64]}
        (tmp_path / "config.json").write_text(json.dumps(config | {"model_args": {"layers": layers}}))
        if fits:
            assert ssl_backbones.create_model(tmp_path).num_features == 512
        else:
            assert "two of timm's own resnet18" in refused(tmp_path)[0]


def test_arguments_that_fit_are_taken(made: Path, tmp_path: Path) -> None:
    """Arguments of a network that timm's own name makes only with them."""
    wide = timm.create_model("resnet18", num_classes=0, layers=[1, 1, 1, 1])
    config = json.loads((made / "config.json").read_text()) | {"architecture": "resnet18"}
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_args": {"layers": [1, 1, 1, 1]}}))
    torch.save(wide.state_dict(), tmp_path / "pytorch_model.bin")
    loaded = ssl_backbones.create_model(tmp_path, pretrained=True)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in wide.state_dict().items())


def test_a_trial_draws_no_random_number_and_leaves_no_hook(made: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    read_config(f"local-dir:{made}")
    assert torch.equal(torch.rand(3), expected)
    assert not trial.hooks._global_parameter_registration_hooks
    assert not trial.hooks._global_module_registration_hooks


@pytest.mark.parametrize(
    ("name", "arch"),
    [("resnet8_byol", "resnet8"), ("resnet18_lewel_b", "resnet18"), ("convnext_atto_moco_v2", "convnext_atto")],
)
def test_networks_of_ours_and_of_timm_pass(name: str, arch: str, tmp_path: Path) -> None:
    network: Any = ssl_backbones.create_model(name, num_classes=0)
    save_backbone(network, tmp_path, arch)
    assert ssl_backbones.create_model(tmp_path, pretrained=True).num_features == network.num_features


COMMANDS: dict[str, tuple[str, ...]] = {
    "describe": (),
    "bundle": ("--out", "OUT"),
    "export": ("--format", "onnx", "--out", "OUT"),
    "evaluate": ("--data", "DATA", "--out", "OUT"),
    "embed": ("--data", "DATA", "--out", "OUT.parquet"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_it_in_a_sentence(
    command: str, changed: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed(model_args={"layers": [10**6] * 4})
    first = ["knn"] if command == "evaluate" else []
    places = {"DATA": str(image_folder(tmp_path / "data")), "OUT": str(tmp_path / "out"), "OUT.parquet": "out.parquet"}
    words = [places.get(word, word) for word in COMMANDS[command]]
    assert run(command, [*first, str(folder), *words], command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "model_args.layers is 1000000" in said or "numbers, more than" in said
