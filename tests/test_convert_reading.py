"""Files of strangers: nothing in them runs, and what is wrong with one is said in a sentence."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from checkpoints import backbone, haiku, moco
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ssl_backbones
from ssl_backbones import PretrainedWeightsError, __main__
from ssl_backbones.catalogue.start import open_start
from ssl_backbones.convert import ConversionError, convert, read_checkpoint, reading
from ssl_backbones.fetch import from_hub, published_weights
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.models.teacher import Teacher

NET = backbone("resnet8")
REQUIRE = reading.require_safe_torch
"""As the package has it: tests of others are skipped by what stands in its place."""


class Touch:
    """Unpickled by a careless reader, it leaves a file behind."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.canary}",))


def saved(content: Any, legacy: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


WAYS = {
    "zip": lambda evil: saved({"state_dict": NET, "extra": evil}),
    "legacy": lambda evil: saved({"state_dict": NET, "extra": evil}, legacy=True),
    "plain pickle": lambda evil: pickle.dumps({"experiment_state": evil}),
    "old plain pickle": lambda evil: pickle.dumps({"experiment_state": evil}, protocol=2),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_pickle_that_would_run_code_is_refused_unexecuted(way: str, tmp_path: Path, capsys):
    canary, path = tmp_path / "canary", tmp_path / "evil.pth"
    path.write_bytes(WAYS[way](Touch(canary)))
    with pytest.raises(ConversionError):
        convert(path)
    assert __main__.main(["convert", str(path), "--out", str(tmp_path / "out")]) == 2
    assert __main__.main(["import", "resnet50_swav.in1k_800ep", str(path)]) == 2
    assert not canary.exists()
    assert not (tmp_path / "out").exists()
    printed = capsys.readouterr().err
    assert printed.count("\n") == 2
    assert "Traceback" not in printed
    if way in ("zip", "legacy", "old plain pickle"):
        assert "posix.system" in printed or "nt.system" in printed
    assert "could run code" in printed
    pickle.loads(pickle.dumps(Touch(canary)))
    assert canary.exists()  # so the canary sings


@pytest.mark.parametrize("version", ["2.10.0", "2.10.0+cpu", "2.11.0a0", "2.14.0+cu130", "3.0"])
def test_a_torch_of_today_reads_pickles(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
    REQUIRE("net.pth")


def test_an_older_torch_reads_no_pickle_and_says_so_before_it_fetches_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, safe = tmp_path / "net.pth", tmp_path / "net.safetensors"
    path.write_bytes(saved(NET))
    safetensors.torch.save_file({key: value.contiguous() for key, value in NET.items()}, safe)
    monkeypatch.setattr(reading, "require_safe_torch", REQUIRE)
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.9.1"))
    because = "is a pickle, and torch 2.9.1 can be made to run code by one: install torch 2.10 or later, or save"
    assert __main__.main(["convert", str(path), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"ssl-backbones convert: {str(path)!r} {because}")
    assert convert(safe).architecture == "resnet8"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("ssl_backbones.fetch.weights.download", None)
    with pytest.raises(PretrainedWeightsError, match=rf"swav_800ep_pretrain\.pth\.tar' {because}"):
        published_weights("resnet50_swav.in1k_800ep", cache_dir=tmp_path)


def test_an_older_torch_lets_timm_read_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder as a model, as a start and as a teacher; one with safetensors is read."""
    network = ssl_backbones.create_model("resnet8", num_classes=0)
    folder = save_backbone(network, tmp_path / "net", "resnet8")
    monkeypatch.setattr(from_hub, "require_safe_torch", REQUIRE)
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.9.1"))
    ssl_backbones.create_model(folder, pretrained=True)
    Teacher(str(folder)).open(32)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(saved(network.state_dict()))
    for read in (
        lambda: ssl_backbones.create_model(folder, pretrained=True),
        lambda: open_start(str(folder), "resnet8"),
        lambda: Teacher(str(folder)).open(32),
    ):
        with pytest.raises(ValueError, match=r"is a pickle, and torch 2\.9\.1 can be made to run code by one"):
            read()


@pytest.mark.parametrize("name", ["resnet8_byol", "test_resnet"])
def test_an_older_torch_lets_timm_read_no_pickle_that_is_named_beside_the_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = ssl_backbones.create_model(name, num_classes=0)
    pickled, safe = tmp_path / "net.pth", tmp_path / "net.safetensors"
    pickled.write_bytes(saved(network.state_dict()))
    safetensors.torch.save_file(network.state_dict(), safe)
    monkeypatch.setattr(from_hub, "require_safe_torch", REQUIRE)
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.9.1"))
    named: tuple[dict[str, Any], ...] = (
        {"pretrained": True, "pretrained_cfg_overlay": {"file": str(pickled)}},
        {"pretrained": True, "pretrained_cfg_overlay": {"hf_hub_id": "org/name"}},
        {"checkpoint_path": str(pickled)},
    )
    for way in named:
        with pytest.raises(ConversionError, match=r"is a pickle, and torch 2\.9\.1 can be made to run code by one"):
            ssl_backbones.create_model(name, num_classes=0, **way)
    if name == "resnet8_byol":
        with pytest.raises(ConversionError, match="is a pickle"):
            timm.create_model(name, **named[0])
    ssl_backbones.create_model(name, num_classes=0, checkpoint_path=str(safe))
    overlay = {"file": str(safe), "num_classes": 0}
    ssl_backbones.create_model(name, num_classes=0, pretrained=True, pretrained_cfg_overlay=overlay)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "cut short"),
        (b"<!DOCTYPE html><html>Google Drive</html>", "a web page"),
        (b"  \n<html>", "a web page"),
        (b"\x80", "cut short"),
        (b"PK\x03\x04 nothing", "cut short"),
        (b"hello, world", "no checkpoint"),
        (saved(NET)[:-400], "cut short"),
        (saved(NET)[: len(saved(NET)) // 2], "cut short"),
        (saved(NET, legacy=True)[:-40], "cut short"),
        (saved(NET, legacy=True)[:400], "cut short"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{" + b" " * 99, "damaged"),
        (b"\xff" * 8 + b"{}", "damaged"),
    ],
    ids=range(12),
)
def test_a_damaged_file_is_refused(content: bytes, told: str, tmp_path: Path):
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(content)
    with pytest.raises(ConversionError, match=told) as caught:
        convert(path)
    assert str(path) in str(caught.value)


def archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, **{key: np.ascontiguousarray(value) for key, value in list(haiku(backbone()).items())[:6]})
    return file.getvalue()


WHOLE = (saved(moco(NET, ["fc.weight"])), saved(NET, legacy=True), archive())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.sampled_from(WHOLE),
    places=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4),
    data=st.data(),
)
def test_however_a_file_is_damaged_it_is_read_or_refused(content: bytes, places: list[float], data, tmp_path: Path):
    changed = bytearray(content)
    for place in places:
        at = int(place * len(changed))
        changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    (tmp_path / "damaged").write_bytes(changed)
    with contextlib.suppress(ConversionError):
        convert(tmp_path / "damaged", "resnet8")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path):
    for path in (tmp_path / "gone.pth", tmp_path):
        with pytest.raises(ConversionError, match="cannot be read"):
            convert(path)


def test_arrays_that_are_pickled_objects_are_refused(tmp_path: Path):
    canary = tmp_path / "canary"
    np.savez(tmp_path / "evil.npz", **{"res_net50/~/initial_conv/w": np.array([Touch(canary)], dtype=object)})
    with pytest.raises(ConversionError):
        convert(tmp_path / "evil.npz")
    assert not canary.exists()


def test_an_array_with_a_table_of_another_network_is_no_small_resnet(tmp_path: Path):
    few = {key: np.ascontiguousarray(value) for key, value in list(haiku(backbone()).items())[:5]}
    np.savez(tmp_path / "few.npz", **few)
    with pytest.raises(ConversionError, match="nothing was loaded"):
        convert(tmp_path / "few.npz", "resnet50")


def test_what_is_read_is_named_tensors(tmp_path: Path):
    (tmp_path / "net.pth").write_bytes(saved({"state_dict": NET, "epoch": 3, "note": "text"}))
    assert list(read_checkpoint(tmp_path / "net.pth")) == [f"state_dict.{key}" for key in NET]


def test_dictionaries_without_end_are_read_to_an_end(tmp_path: Path):
    content: dict[str, Any] = {"conv1.weight": torch.ones(1)}
    content["itself"] = content
    deep = content
    for _ in range(5_000):
        deep = {"a": deep}
    (tmp_path / "round.pth").write_bytes(saved({"state_dict": content}))
    assert list(read_checkpoint(tmp_path / "round.pth")) == ["state_dict.conv1.weight"]
    sys.setrecursionlimit(100_000)
    try:
        (tmp_path / "deep.pth").write_bytes(saved(deep))
    finally:
        sys.setrecursionlimit(1000)
    with pytest.raises(ConversionError, match="no tensors by name"):
        read_checkpoint(tmp_path / "deep.pth")
