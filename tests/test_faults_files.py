"""Files from others: weights, configurations and checkpoints that lie are refused, and nothing is run or written."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save

import ssl_backbones
from ssl_backbones.catalogue.start import StartError, open_start
from ssl_backbones.evaluate.model import open_model
from ssl_backbones.hub.bundle import write_bundle
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.hub.formats import export
from ssl_backbones.models.teacher import Teacher, TeacherError
from ssl_backbones.refusal import Refusal
from ssl_backbones.registry.errors import PretrainedWeightsError
from ssl_backbones.runs import checkpoint, saving
from ssl_backbones.runs.manifest import CheckpointError


class Harmful:
    """Unpickled, it would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def legacy(value: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=False)
    return out.getvalue()


def zipped(value: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


PICKLES = {"zip": zipped, "legacy": legacy, "raw": lambda value: pickle.dumps(value, protocol=2)}


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    """The folder of a backbone as a run leaves it."""
    folder = tmp_path / "backbone"
    save_backbone(ssl_backbones.create_model("resnet8", num_classes=0), folder, "resnet8")
    return folder


def train_from(folder: Path) -> object:
    return open_start(str(folder), "test_resnet")


def teach(folder: Path) -> object:
    return Teacher(str(folder)).open(32)


def carry(folder: Path) -> object:
    return write_bundle([str(folder)], folder.parent / "bundle")


def hand_on(folder: Path) -> object:
    return export(folder, "torchvision", folder.parent / "exported.pth")


def evaluate(folder: Path) -> object:
    return open_model(folder, torch.device("cpu"))


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("opened", [evaluate, train_from, teach, carry, hand_on])
def test_a_folder_that_lacks_a_tensor_is_opened_by_nothing(
    opened: Callable[[Path], object], classes: int, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    timm.models.save_for_hf(timm.create_model("test_resnet", num_classes=classes), folder, safe_serialization=True)
    weights = load_file(folder / "model.safetensors")
    del weights["layer2.0.conv1.weight"]
    (folder / "model.safetensors").write_bytes(save(weights))
    with pytest.raises((PretrainedWeightsError, StartError, TeacherError), match=r"layer2\.0\.conv1\.weight"):
        opened(folder)


def below(path: Path) -> set[str]:
    return {str(found.relative_to(path)) for found in path.rglob("*")}


@pytest.mark.parametrize("kind", PICKLES)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pickle_runs_nothing(kind: str, name: str, backbone: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (backbone / "model.safetensors").unlink()
    (backbone / name).write_bytes(PICKLES[kind]({"conv1.weight": Harmful(mark)}))
    before = below(tmp_path)
    with pytest.raises(Refusal):
        ssl_backbones.create_model(str(backbone), pretrained=True)
    assert not mark.exists()
    assert below(tmp_path) == before


def lying(weights: dict[str, torch.Tensor], **changes: Any) -> bytes:
    """Weights whose header says something else of the first tensor, or of its own length."""
    content = save(weights)
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    first = sorted(name for name in header if name != "__metadata__")[0]
    header[first] |= {key: value for key, value in changes.items() if key != "length"}
    new = json.dumps(header).encode()
    return struct.pack("<Q", changes.get("length", len(new))) + new + content[8 + length :]


HEADERS: dict[str, dict[str, Any]] = {
    "a shape too large": {"shape": [10**6, 10**6]},
    "a shape beyond 64 bits": {"shape": [2**40, 2**40]},
    "a negative shape": {"shape": [-1, 3, 3, 3]},
    "offsets beyond the end": {"data_offsets": [0, 10**12]},
    "offsets that run backwards": {"data_offsets": [100, 0]},
    "another type": {"dtype": "F64"},
    "no type there is": {"dtype": "PICKLE"},
    "a header longer than the file": {"length": 10**9},
    "a header beyond 64 bits": {"length": 2**64 - 1},
    "no header": {"length": 0},
}


@pytest.mark.parametrize("lie", HEADERS)
def test_a_header_that_lies_is_refused(lie: str, backbone: Path) -> None:
    weights = load_file(backbone / "model.safetensors")
    (backbone / "model.safetensors").write_bytes(lying(weights, **HEADERS[lie]))
    with pytest.raises(PretrainedWeightsError, match="damaged"):
        ssl_backbones.create_model(str(backbone), pretrained=True)


def test_damaged_weights_are_refused_or_whole(backbone: Path) -> None:
    """Flipped bits in a header, and files cut anywhere: an error of ours, never a crash or a network half loaded."""
    sound = (backbone / "model.safetensors").read_bytes()
    generator = random.Random(0)
    names = set(load_file(backbone / "model.safetensors"))
    for _ in range(60):
        file = bytearray(sound)
        if generator.random() < 0.5:
            file = file[: generator.randrange(len(file))]
        else:
            length = struct.unpack("<Q", sound[:8])[0]
            file[generator.randrange(8 + length)] ^= 1 << generator.randrange(8)
        (backbone / "model.safetensors").write_bytes(bytes(file))
        try:
            model = ssl_backbones.create_model(str(backbone), pretrained=True)
        except Refusal:
            continue
        assert set(model.state_dict()) == names


@pytest.mark.parametrize(
    "spoil",
    [
        lambda weights: {name: value for name, value in weights.items() if name != "conv1.weight"},
        lambda weights: weights | {"../../outside": torch.ones(1)},
        lambda weights: weights | {"conv1.weight": torch.ones(2, 2)},
        lambda weights: {},
    ],
    ids=["missing", "extra", "another shape", "nothing"],
)
def test_weights_of_something_else_are_refused(spoil: Any, backbone: Path, tmp_path: Path) -> None:
    weights = spoil(load_file(backbone / "model.safetensors"))
    (backbone / "model.safetensors").write_bytes(save(weights))
    before = below(tmp_path)
    with pytest.raises(Refusal):
        ssl_backbones.create_model(str(backbone), pretrained=True)
    assert below(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "../../../etc/passwd"},
        {"architecture": "os:system"},
        {"architecture": "resnet8; import os"},
        {"architecture": ["resnet8"]},
        {"architecture": None},
        {"architecture": ""},
    ],
    ids=str,
)
def test_a_configuration_names_an_architecture_and_nothing_else(
    change: dict[str, Any], backbone: Path, tmp_path: Path
) -> None:
    config = json.loads((backbone / "config.json").read_text()) | change
    (backbone / "config.json").write_text(json.dumps(config))
    before = below(tmp_path)
    with pytest.raises(Refusal):
        ssl_backbones.create_model(str(backbone), pretrained=True)
    assert below(tmp_path) == before


@pytest.mark.parametrize("field", ["file", "url", "hf_hub_id", "hf_hub_filename", "custom_load"])
def test_a_configuration_cannot_point_elsewhere(field: str, backbone: Path, tmp_path: Path) -> None:
    """The weights are those that lie beside it, whatever it names."""
    mark = tmp_path / "mark"
    (tmp_path / "elsewhere.bin").write_bytes(zipped({"conv1.weight": Harmful(mark)}))
    elsewhere = {"url": f"file://{tmp_path}/elsewhere.bin", "custom_load": "hf"}.get(field, "../elsewhere.bin")
    config = json.loads((backbone / "config.json").read_text())
    config["pretrained_cfg"][field] = elsewhere
    (backbone / "config.json").write_text(json.dumps(config))
    before = below(tmp_path)
    own = load_file(backbone / "model.safetensors")
    model = ssl_backbones.create_model(str(backbone), pretrained=True)
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    assert not mark.exists()
    assert below(tmp_path) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a": ' * 2000, b"[" * 100_000])
def test_a_configuration_that_is_none(content: bytes, backbone: Path) -> None:
    (backbone / "config.json").write_bytes(content)
    with pytest.raises(Refusal):
        ssl_backbones.create_model(str(backbone), pretrained=True)


def test_a_zip_bomb_is_no_checkpoint(tmp_path: Path) -> None:
    """Instead of tensors, a small archive that would unpack to two gigabytes: it is never unpacked."""
    path = saving.save(tmp_path, 1, {"method": {"weight": torch.ones(3)}}, {})
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("data", "w") as file:
        for _ in range(16):
            file.write(bytes(1 << 20))
    (path / "method.safetensors").write_bytes((tmp_path / "bomb").read_bytes())
    with pytest.raises(CheckpointError, match=r"method\.safetensors has \d+ bytes instead of"):
        checkpoint.load_latest(tmp_path)
