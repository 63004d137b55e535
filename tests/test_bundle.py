"""Weights carried by hand: whole, with all that goes with them, and proved so where they arrive."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hub_state import STRANGER
from runs import image_folder

import ssl_backbones
from ssl_backbones import __main__
from ssl_backbones.hub.bundle import BundleError, verify_bundle, write_bundle
from ssl_backbones.hub.export import save_backbone


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with that of a run, which has the results beside its backbone, and a bundle of it."""
    folder = tmp_path_factory.mktemp("made") / "lewel"
    model = timm.create_model("resnet8", num_classes=0)
    fields: dict[str, Any] = {"license": "cc0-1.0", "description": "three epochs of images", "mean": (0.1, 0.2, 0.3)}
    save_backbone(model, folder / "backbone", "resnet8", input_size=(3, 48, 48), crop_pct=0.9, **fields)
    results = {"model": "resnet8_lewel_b", "epochs": 3, "data": {"images": 117}}
    (folder / "results.json").write_text(json.dumps(results))
    write_bundle([str(folder)], folder.parent / "bundle")
    return folder.parent


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "lewel", tmp_path / "runs" / "lewel")


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "bundle", tmp_path / "bundle")


def test_a_bundle_is_made_here_and_verified_there(run: Path, tmp_path: Path, capsys):
    assert __main__.main(["bundle", str(run), "--out", str(tmp_path / "bundle")]) == 0
    there = tmp_path / "there"
    shutil.copytree(tmp_path / "bundle", there)
    wanted = ssl_backbones.create_model(run, pretrained=True)
    shutil.rmtree(run)
    shutil.rmtree(tmp_path / "bundle")
    capsys.readouterr()
    assert __main__.main(["verify", str(there)]) == 0
    said = capsys.readouterr().out.strip()
    model = eval(said, {"ssl_backbones": ssl_backbones})
    assert all(torch.equal(value, wanted.state_dict()[key]) for key, value in model.state_dict().items())
    cfg = model.pretrained_cfg
    assert (cfg["input_size"], cfg["crop_pct"], cfg["license"]) == ([3, 48, 48], 0.9, "cc0-1.0")
    assert tuple(cfg["mean"]) == (0.1, 0.2, 0.3)


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def flip(bundle: Path) -> None:
    path = bundle / "lewel" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def escape(name: str) -> Callable[[Path], None]:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = {"size": 1, "sha256": ""}

    return lambda bundle: change(bundle / "bundle.json", edit)


def link(bundle: Path) -> None:
    path = bundle / "lewel" / "config.json"
    outside = bundle.parent / "outside.json"
    path.rename(outside)
    path.symlink_to(outside)


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped": (flip, "is not what was written"),
    "cut": (lambda b: (b / "lewel" / "config.json").write_text("{}") and None, "is not what was written"),
    "missing": (lambda b: (b / "lewel" / "config.json").unlink(), "is missing"),
    "linked": (lambda b: (b / "elsewhere").symlink_to(b.parent) and None, "was added"),
    "added": (lambda b: (b / "lewel" / "pytorch_model.bin").write_text("x") and None, "was added"),
    "up and out": (escape("../outside"), "leads out"),
    "hidden way out": (escape("lewel/../../outside"), "leads out"),
    "absolute": (escape("/etc/hostname"), "leads out"),
    "drive": (escape("C:\\outside"), "leads out"),
    "empty name": (escape(""), "leads out"),
    "link": (link, "leads out"),
    "model outside": (lambda b: change(b / "bundle.json", lambda m: m["models"].append("../..")), "leads out"),
    "no model name": (
        lambda b: change(b / "bundle.json", lambda m: m["models"].append(3)),
        "models.1 is 3, but must be text",
    ),
    "no manifest": (lambda b: (b / "bundle.json").unlink(), "bundle.json cannot be read .No such file or directory"),
    "manifest cut": (lambda b: (b / "bundle.json").write_text('{"schema"') and None, "it is no JSON"),
    "manifest a list": (lambda b: (b / "bundle.json").write_text("[]") and None, "it holds no object"),
    "files a list": (lambda b: change(b / "bundle.json", lambda m: m.update(files=["a"])), "is damaged"),
    "no hash": (lambda b: change(b / "bundle.json", lambda m: m["files"].update(a={"size": 1})), "is damaged"),
    "newer": (lambda b: change(b / "bundle.json", lambda m: m.update(schema=2)), "schema 2"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_bundle_that_is_not_what_was_written_is_refused(how: str, bundle: Path, capsys):
    spoil, told = SPOILT[how]
    verify_bundle(bundle)
    spoil(bundle)
    with pytest.raises(BundleError, match=told):
        verify_bundle(bundle)
    assert __main__.main(["verify", str(bundle)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_cannot_be_bundled_is_one_sentence(run: Path, bundle: Path, tmp_path: Path, capsys):
    for words, told in (
        (["bundle", str(run), "--out", str(bundle)], "is not empty"),
        (["bundle", str(run), str(run), "--out", str(tmp_path / "two")], "would be called"),
        (["bundle", "resnet8_byoll", "--out", str(tmp_path / "three")], "resnet8_byol"),
        (["bundle", "resnet20_byol", "--out", str(tmp_path / "four")], "no weights are published"),
    ):
        assert __main__.main(words) == 2
        said = capsys.readouterr().err
        assert told in said
        assert said.count("\n") == 1


def test_a_runs_folder_is_described(run: Path, capsys):
    assert __main__.main(["describe", str(run)]) == 0
    said = capsys.readouterr().out
    for part in ("resnet8", "LEWEL_B", "117 images, 3 epochs", "cc0-1.0", "three epochs of images", "at 48 px"):
        assert part in said
    known = ssl_backbones.describe(run / "backbone")
    assert (known.backbone, known.method, known.epochs) == ("resnet8", "LEWEL_B", 3)


def test_a_folder_is_described_by_the_results_beside_it_and_not_by_a_strangers_above(run: Path, tmp_path: Path):
    published, other = (shutil.copytree(run / "backbone", tmp_path / name) for name in ("published", "other"))
    shutil.copyfile(run / "results.json", published / "results.json")
    shutil.copyfile(run / "results.json", tmp_path / "results.json")
    assert ssl_backbones.describe(published).epochs == 3
    strangers = ssl_backbones.describe(other)
    assert (strangers.method, strangers.data, strangers.epochs) == ("not recorded", None, None)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "it is no JSON"),
        ('{"architecture": "resnet8"', "it is no JSON"),
        ("\xff", "it is no JSON: it is not written in UTF-8"),
        ("[" * 100_000, "it is nested more than 64 deep"),
        ("[]", "it holds no object"),
        ("{}", "no architecture None"),
        ('{"architecture": 8}', "no architecture 8"),
        ('{"architecture": "resnet9"}', "no architecture 'resnet9'"),
        ('{"architecture": "resnet8", "pretrained_cfg": 1}', "pretrained_cfg is 1, but must be an object"),
        ('{"architecture": "resnet8", "model_args": null}', "model_args is None, but must be an object"),
        ('{"architecture": "resnet8", "pretrained_cfg": {"colour": 1}}', "'colour'"),
        ('{"architecture": "resnet8", "pretrained_cfg": {"mean": "grey"}}', "mean is 'grey', but must be a list"),
        ('{"architecture": "resnet8", "pretrained_cfg": {"input_size": [3, -1, 2]}}', "input_size is [3, -1, 2]"),
    ],
)
def test_a_corrupt_configuration_is_one_sentence(content: str, told: str, run: Path, capsys):
    (run / "backbone" / "config.json").write_text(content, encoding="latin-1")
    for ask in (ssl_backbones.describe, ssl_backbones.create_model):
        with pytest.raises(ssl_backbones.PretrainedWeightsError) as caught:
            ask(run)
        assert told in str(caught.value)
        assert "config.json" in str(caught.value)
    assert __main__.main(["describe", str(run)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "command", ["describe {}", "publish {} --enter --dry_run", "visualize {} --data images --out page"]
)
@pytest.mark.parametrize("lost", ["results.json", "backbone"])
def test_a_run_that_lost_a_part_is_named_with_the_way_to_make_it_anew(
    command: str, lost: str, run: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (run / "recipe.json").write_text(json.dumps({"name": "x", "model": "resnet8_byol", "size": 48}))
    if lost == "backbone":
        shutil.rmtree(run / lost)
    else:
        os.truncate(run / lost, 20)
    image_folder(tmp_path / "images", 2)
    assert __main__.main([word.format(run) for word in command.split()]) in (1, 2)
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert lost in said
    assert "which makes it anew" in said


@pytest.mark.parametrize(
    ("architecture", "another", "kwargs"),
    [
        *(("resnet8", "resnet20", kwargs) for kwargs in ({}, {"num_classes": 5}, {"features_only": True})),
        ("resnet18", "resnet34", {"features_only": True}),
    ],
    ids=str,
)
def test_a_folder_with_others_weights_or_none_is_one_sentence(
    architecture: str, another: str, kwargs: dict[str, Any], tmp_path: Path
):
    folder = save_backbone(timm.create_model(architecture, num_classes=0), tmp_path / "run", architecture)
    other = save_backbone(timm.create_model(another, num_classes=0), tmp_path / "other", another)
    shutil.copyfile(other / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(ssl_backbones.PretrainedWeightsError, match=r"not those of|not the weights") as caught:
        ssl_backbones.create_model(folder, pretrained=True, **kwargs)
    assert "\n" not in str(caught.value)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ssl_backbones.PretrainedWeightsError, match="are missing"):
        ssl_backbones.create_model(folder, pretrained=True, **kwargs)


def test_a_converted_checkpoint_is_a_folder_that_timm_loads(tmp_path: Path, capsys):
    net = timm.create_model("resnet18", num_classes=0).state_dict()
    torch.save({"state_dict": {f"module.encoder_q.{key}": value for key, value in net.items()}}, tmp_path / "moco.pth")
    words = ["convert", str(tmp_path / "moco.pth"), "--out", str(tmp_path / "out"), "--licence", "cc-by-nc-4.0"]
    assert __main__.main(words) == 0
    assert "a resnet18, converted from moco.pth" in capsys.readouterr().out
    loaded = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    assert all(torch.equal(value, net[key]) for key, value in loaded.state_dict().items())
    assert (loaded.pretrained_cfg["license"], loaded.pretrained_cfg["crop_pct"]) == ("cc-by-nc-4.0", 0.875)
    known = ssl_backbones.describe(tmp_path / "out")
    assert known.non_commercial
    assert "the network under 'state_dict.module.encoder_q.'" in known.notes
    assert __main__.main(words) == 2
    assert "not an empty folder" in capsys.readouterr().err
    for more, told in ((["--architecture", "resnet9"], "knows no"), (["--architecture", "resnet50"], "does not fill")):
        assert __main__.main([*words[:3], str(tmp_path / "new"), *more]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("place", ["description", "origin_url", "tag", "license"])
def test_a_token_is_not_bundled(place: str, run: Path, tmp_path: Path, capsys):
    model = timm.create_model("resnet8", num_classes=0)
    told: dict[str, Any] = {place: f"by {STRANGER}"}
    other = save_backbone(model, tmp_path / "other", "resnet8", **told)
    words = ["bundle", str(run), str(other), "--out", str(tmp_path / "bundle")]
    assert __main__.main(words) == 2
    said = capsys.readouterr()
    assert "other/config.json would hold what looks like an access token: take it out" in said.err
    assert STRANGER not in said.err + said.out
    assert not (tmp_path / "bundle").exists()
    (other / "config.json").write_text((other / "config.json").read_text().replace(STRANGER, "nobody"))
    assert __main__.main(words) == 0
