"""Exports are loaded by other libraries: the same keys, the same outputs, the preparation beside them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from detectron2_resnet import ResNet, on_meta
from hub_state import STRANGER

from ssl_backbones import __main__
from ssl_backbones.convert import convert
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.hub.export_detectron2 import detectron2_name
from ssl_backbones.hub.formats import FORMATS, export
from ssl_backbones.hub.sidecar import GROUPED, PLAIN, Exported, ExportError, write_exported
from ssl_backbones.outputs import OutputError
from ssl_backbones.weightless import weightless

PREPARED = {
    "input_size": [3, 96, 96],
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.25, 0.3],
    "interpolation": "bicubic",
    "crop_pct": 0.9,
}


def trained(architecture: str) -> Any:
    """A network whose statistics are no longer those of a fresh one."""
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=0).train()
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))
    return model.eval()


@pytest.fixture(scope="module")
def resnet50() -> Any:
    return trained("resnet50")


@pytest.fixture(scope="module")
def folder(resnet50: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run")
    return save_backbone(resnet50, place / "backbone", "resnet50", license="cc-by-nc-4.0", **PREPARED)


@pytest.fixture(scope="module")
def resnet18() -> Any:
    return trained("resnet18")


@pytest.fixture(scope="module")
def shallow(resnet18: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_backbone(resnet18, tmp_path_factory.mktemp("shallow"), "resnet18", license="cc-by-nc-4.0", **PREPARED)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_backbone(trained("resnet8"), tmp_path_factory.mktemp("small"), "resnet8", **PREPARED)


IMAGES = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))


def beside(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.with_name(f"{file.name}.json").read_text())
    assert content["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert content["preparation"] == PREPARED
    assert content["license"] == "cc-by-nc-4.0"
    return content


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_torchvision_loads_it(suffix: str, shallow: Path, resnet18: Any, tmp_path: Path):
    torchvision = pytest.importorskip("torchvision")
    file = export(shallow, "torchvision", tmp_path / f"net.{suffix}")
    other = torchvision.models.resnet18().eval()
    other.fc = torch.nn.Identity()
    other.load_state_dict(timm.models.load_state_dict(str(file)))
    with torch.no_grad():
        torch.testing.assert_close(other(IMAGES), resnet18(IMAGES), rtol=1e-5, atol=1e-5)
    assert beside(file)["architecture"] == "resnet18"


@pytest.mark.parametrize("there", ["net.pth", "net.pth.json"])
def test_a_file_that_exists_is_kept_unless_it_may_be_replaced(there: str, shallow: Path, tmp_path: Path):
    (tmp_path / there).write_bytes(b"somebody's")
    with pytest.raises(OutputError, match=r"exists: name another file with --out, or replace it with --overwrite"):
        export(shallow, "torchvision", tmp_path / "net.pth")
    assert (tmp_path / there).read_bytes() == b"somebody's"
    beside(export(shallow, "torchvision", tmp_path / "net.pth", overwrite=True))


def test_detectron2_names_every_tensor():
    with weightless():
        ours = timm.create_model("resnet50", num_classes=0).state_dict()
    theirs = on_meta().state_dict()
    renamed = {detectron2_name(key): value.shape for key, value in ours.items()}
    assert len(renamed) == 318
    assert renamed == {key: value.shape for key, value in theirs.items()}


def test_detectron2_reads_the_file_and_computes_the_same(folder: Path, resnet50: Any, tmp_path: Path):
    file = export(folder, "detectron2", tmp_path / "net.pth")
    content = torch.load(file, weights_only=True)
    assert content.keys() == {"model", "__author__", "matching_heuristics"}
    assert content["matching_heuristics"] is True
    assert all(isinstance(value, torch.Tensor) for value in content["model"].values())
    other = ResNet().eval()
    other.load_state_dict(content["model"])
    with torch.no_grad():
        torch.testing.assert_close(other(IMAGES), resnet50.forward_features(IMAGES), rtol=1e-5, atol=1e-5)
    settings = beside(file)["settings"]
    assert settings["MODEL.PIXEL_MEAN"] == [127.5, 102.0, 76.5]
    assert (settings["INPUT.FORMAT"], settings["MODEL.RESNETS.STRIDE_IN_1X1"]) == ("RGB", False)


@pytest.mark.parametrize("format", ["mmdet", "mmseg"])
def test_openmmlab_finds_torchvisions_names_in_a_state_dict(format: str, shallow: Path, resnet18: Any, tmp_path: Path):
    file = export(shallow, format, tmp_path / "net.pth")
    content = torch.load(file, weights_only=True)
    assert list(content["state_dict"]) == list(resnet18.state_dict())
    assert all(torch.equal(content["state_dict"][key], value) for key, value in resnet18.state_dict().items())
    assert content["meta"]["data_preprocessor"]["mean"] == [127.5, 102.0, 76.5]
    told = beside(file)["backbone"]
    assert (told["type"], told["depth"], told["style"]) == ("ResNet", 18, "pytorch")


def test_what_is_exported_for_torchvision_and_openmmlab_converts_back(shallow: Path, resnet18: Any, tmp_path: Path):
    for format in ("torchvision", "mmdet"):
        weights = convert(export(shallow, format, tmp_path / f"{format}.pth")).weights
        assert all(torch.equal(weights[key], value) for key, value in resnet18.state_dict().items())


@pytest.mark.filterwarnings("ignore")
def test_onnx_computes_the_same_for_any_number_of_images(small: Path, tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    file = export(small, "onnx", tmp_path / "net.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net.onnx.json"]
    metadata = {prop.key: json.loads(prop.value) for prop in onnx.load(file).metadata_props if prop.key in PREPARED}
    assert metadata == PREPARED
    assert str(Path(timm.__file__).parent).encode() not in file.read_bytes(), "where this machine keeps its code"
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    reference = timm.create_model(f"local-dir:{small}", pretrained=True).eval()
    for count in (1, 5):
        images = torch.randn(count, 3, 96, 96)
        (embedding,) = session.run(["embedding"], {"images": images.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(embedding), reference(images), rtol=1e-4, atol=1e-4)


def test_onnx_without_its_packages_says_what_to_install(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ExportError, match=r"pip install 'ssl-backbones\[onnx\]'"):
        export(small, "onnx", tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", [format for format in FORMATS if format != "onnx"])
def test_a_network_that_others_do_not_know_is_refused(format: str, small: Path, tmp_path: Path, capsys):
    words = ["export", str(small), "--format", format, "--out", str(tmp_path / "net.pth")]
    assert __main__.main(words) == 2
    assert "is not for" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["torchvision", "detectron2", "mmdet"])
@pytest.mark.parametrize(
    ("architecture", "made"),
    [
        ("resnetaa50", {}),
        ("resnetblur50", {}),
        ("seresnet50", {}),
        ("resnet26", {}),
        ("resnet18", {"act_layer": "silu"}),
        ("resnet18", {"norm_layer": torch.nn.Identity}),
        ("resnet18", {"in_chans": 1}),
        ("resnet50", {"output_stride": 8}),
    ],
)
def test_a_network_that_others_would_compute_otherwise_is_refused(
    architecture: str, made: dict[str, Any], format: str, tmp_path: Path
):
    with weightless():
        network = timm.create_model(architecture, num_classes=0, **made)
    with pytest.raises(ExportError, match="take --format onnx"):
        FORMATS[format](network, tmp_path / "net.pth", architecture)


@pytest.mark.parametrize("architecture", [*PLAIN, *GROUPED])
def test_the_networks_that_are_known_elsewhere_have_torchvisions_tensors(architecture: str, tmp_path: Path):
    models = pytest.importorskip("torchvision.models")
    with weightless():
        theirs = models.get_model(architecture).state_dict()
        ours = timm.create_model(architecture).state_dict()
    assert {key: value.shape for key, value in theirs.items()} == {key: value.shape for key, value in ours.items()}
    if architecture in GROUPED:
        with weightless(), pytest.raises(ExportError, match="is not for detectron2"):
            FORMATS["detectron2"](timm.create_model(architecture, num_classes=0), tmp_path / "net.pth", architecture)


@pytest.mark.parametrize("place", ["description", "origin_url", "tag", "license"])
def test_a_token_in_a_description_is_not_exported(place: str, resnet18: Any, tmp_path: Path, capsys):
    folder = save_backbone(resnet18, tmp_path / "from", "resnet18", **PREPARED, **{place: f"by {STRANGER}"})
    (tmp_path / "net.pth").write_bytes(b"old")
    assert (
        __main__.main(["export", str(folder), "--format", "mmdet", "--out", str(tmp_path / "net.pth"), "--overwrite"])
        == 2
    )
    said = capsys.readouterr()
    assert "the description of the model would hold what looks like an access token: take it out" in said.err
    assert STRANGER not in said.err + said.out
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == {"net.pth": b"old"}


def test_a_token_among_the_weights_is_not_exported(tmp_path: Path):
    model = timm.create_model("resnet8", num_classes=0)
    with pytest.raises(ExportError, match="the weights would hold what looks like an access token"):
        write_exported(tmp_path / "net.pth", model, "resnet8", Exported(STRANGER.encode(), {}))
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_wrote(shallow: Path, tmp_path: Path, capsys):
    file = tmp_path / "net.pth"
    assert __main__.main(["export", str(shallow), "--format", "mmseg", "--out", str(file)]) == 0
    assert f"{file}.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "out", "told"),
    [
        ("resnet50_lewel_b.in1k_40ep", "net.pth", "resnet50_lewel_b.in1k_400ep"),
        ("resnet50_lewel_m.in1k_200ep", "net.pth", "no weights are published"),
        ("resnet50_lewel_m.in1k_200ep", "gone/net.pth", "a folder that exists"),
        ("resnet50_lewel_m.in1k_200ep", "", "is a folder"),
    ],
)
def test_an_export_that_cannot_be_is_one_sentence(model: str, out: str, told: str, tmp_path: Path, capsys):
    assert __main__.main(["export", model, "--format", "mmdet", "--out", str(tmp_path / out)]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_segmentation_models_take_a_registered_name():
    smp = pytest.importorskip("segmentation_models_pytorch")
    with weightless():
        model = smp.Unet("tu-resnet50_moco_v2", encoder_weights=None, classes=4)
    keys = [key.removeprefix("encoder.model.") for key in model.state_dict() if key.startswith("encoder.")]
    with weightless():
        assert keys == list(timm.create_model("resnet50", num_classes=0).state_dict())
