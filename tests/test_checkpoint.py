"""A checkpoint is whole or it is not there; what is torn is told apart and passed over."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_checkpoints import equal, flip, put, state, steps
from torch import nn

import ssl_backbones
from ssl_backbones.files import object_digest
from ssl_backbones.runs import checkpoint, saving
from ssl_backbones.runs.checkpoint import load_latest
from ssl_backbones.runs.manifest import CheckpointError, entry
from ssl_backbones.runs.saving import save
from ssl_backbones.runs.versions import LIBRARIES, code_versions


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "none") is None
    assert put(tmp_path, 7) == tmp_path / "step-00000007"
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.step == 7
    assert equal(loaded.tensors, state(7))
    assert loaded.scalars == {"epoch": 0, "best": 0.1 * 7}
    assert loaded.own == {}
    assert loaded.skipped == ()
    assert loaded.changed() == []


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 4), max_size=4),
    name=st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
)
def test_any_tensor_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, dtype: torch.dtype, shape: list[int], name: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    tensor = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    save(folder, 0, {"part": {name: tensor}}, {})
    loaded = load_latest(folder)
    assert loaded is not None
    assert equal(loaded.tensors, {"part": {name: tensor}})


def test_views_and_shared_memory_come_back_apart(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(2, 3, 2, 2)
    parts = {
        "whole": whole,
        "same": whole,
        "row": whole[1],
        "transposed": whole.transpose(0, 1),
        "channels_last": whole.clone().to(memory_format=torch.channels_last),
        "expanded": torch.ones(1).expand(5),
        "parameter": nn.Parameter(whole),
        "empty": torch.zeros(0, 3),
        "nan": torch.tensor([float("nan"), float("inf")]),
    }
    save(tmp_path, 1, {"part": parts, "nothing": {}}, {})
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.tensors["nothing"] == {}
    assert loaded.tensors["part"].keys() == parts.keys()
    for name, tensor in parts.items():
        assert torch.equal(loaded.tensors["part"][name].nan_to_num(7), tensor.nan_to_num(7)), name
    loaded.tensors["part"]["same"].zero_()
    assert loaded.tensors["part"]["whole"].sum() > 0


def test_what_was_loaded_outlives_its_files(tmp_path: Path) -> None:
    put(tmp_path, 1)
    loaded = load_latest(tmp_path)
    assert loaded is not None
    for file in (tmp_path / "step-00000001").iterdir():
        file.write_bytes(bytes(file.stat().st_size))
    assert equal(loaded.tensors, state(1))


@pytest.mark.parametrize(
    ("keep", "best", "left"), [(1, None, [5]), (2, None, [4, 5]), (2, 1, [1, 4, 5]), (2, 5, [4, 5])]
)
def test_the_last_ones_and_the_best_are_kept(tmp_path: Path, keep: int, best: int | None, left: list[int]) -> None:
    for step in range(1, 6):
        put(tmp_path, step, keep=keep, best=best)
    assert steps(tmp_path) == left
    with pytest.raises(ValueError, match="keep=0"):
        put(tmp_path, 6, keep=0)


def test_torn_ones_do_not_count_as_kept(tmp_path: Path) -> None:
    for step in (10, 20):
        put(tmp_path, step)
    flip(tmp_path / "step-00000020" / "method.safetensors")
    put(tmp_path, 25)
    assert steps(tmp_path) == [10, 25]


def test_a_future_that_was_given_up_goes(tmp_path: Path) -> None:
    for step in (10, 20):
        put(tmp_path, step)
    (tmp_path / "step-00000020" / "MANIFEST.json").unlink()
    put(tmp_path, 15)
    assert steps(tmp_path) == [10, 15]


def test_a_step_saved_whole_is_left_and_a_torn_one_replaced(tmp_path: Path) -> None:
    path = put(tmp_path, 3)
    inode = path.stat().st_ino
    put(tmp_path, 3)
    assert path.stat().st_ino == inode
    flip(path / "method.safetensors")
    put(tmp_path, 3)
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert equal(loaded.tensors, state(3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000003"]


def test_leftovers_are_ignored_and_cleared(tmp_path: Path) -> None:
    for name in (".tmp-step-00000009", ".tmp-old-step-00000001", "step-x", "step-9"):
        (tmp_path / name).mkdir()
    assert load_latest(tmp_path) is None
    put(tmp_path, 10)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["step-00000010", "step-9", "step-x"]


def test_an_old_one_that_cannot_be_deleted_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1, keep=1)

    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(saving, "set_aside", denied)
    with pytest.warns(UserWarning, match="could not be deleted"):
        put(tmp_path, 2, keep=1)
    assert steps(tmp_path) == [1, 2]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_modes_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        path = put(tmp_path, 1, own={"x": torch.ones(1)})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o777 & ~mask
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o666 & ~mask}


FILES = ["method.safetensors", "optimizer.safetensors", "rank-00000.safetensors", "MANIFEST.json"]
DAMAGE: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "flipped in the header": lambda path: flip(path, 20),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "deleted": Path.unlink,
    "a folder": lambda path: (path.unlink(), path.mkdir())[1],
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_damage_is_seen_and_the_one_before_used(tmp_path: Path, file: str, damage: str) -> None:
    for step in (10, 20):
        put(tmp_path, step, own={"mean": torch.ones(2)})
    DAMAGE[damage](tmp_path / "step-00000020" / file)
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.step == 10
    assert equal(loaded.tensors, state(10))
    assert len(loaded.skipped) == 1
    assert loaded.skipped[0].startswith("step-00000020: ")
    DAMAGE[damage](tmp_path / "step-00000010" / file)
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoints .* is whole .*step-00000020.*step-00000010"):
        load_latest(tmp_path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_of_a_manifest_passes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    for step in (1, 2):
        put(folder, step)
    content = bytearray((folder / "step-00000002" / "MANIFEST.json").read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "step-00000002" / "MANIFEST.json").write_bytes(content)
    loaded = load_latest(folder)
    assert loaded is not None
    # A bit that changes nothing but white space is harmless; none may change what is read.
    assert (loaded.step == 1 and loaded.skipped) or (loaded.step == 2 and loaded.scalars == {"epoch": 0, "best": 0.2})


def resealed(path: Path, **changes: Any) -> None:
    """Change a manifest, and make its checksum fit, as another version or an attacker would."""
    content = json.loads((path / "MANIFEST.json").read_text()) | changes
    (path / "MANIFEST.json").write_text(json.dumps(content | {"sha256": object_digest(content)}))


def test_another_version_is_an_error_and_no_reason_to_go_back(tmp_path: Path) -> None:
    put(tmp_path, 1)
    resealed(put(tmp_path, 2), schema=99)
    with pytest.raises(CheckpointError, match="format 99 and this version reads 1"):
        load_latest(tmp_path)


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    put(tmp_path, 1)
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    path = put(tmp_path, 2)
    resealed(path, files={"../secret.safetensors": entry(tmp_path / "secret.safetensors")})
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.step == 1
    assert "lists a file '../secret.safetensors'" in loaded.skipped[0]


def test_a_renamed_checkpoint_is_not_another_step(tmp_path: Path) -> None:
    put(tmp_path, 2).rename(tmp_path / "step-00000003")
    with pytest.raises(CheckpointError, match="it was saved at step 2"):
        load_latest(tmp_path)


@pytest.mark.parametrize("scalars", [{"a": (1, 2)}, {1: 2}, {"a": float("nan")}, {"a": torch.ones(1)}])
def test_scalars_that_would_come_back_changed_are_refused(tmp_path: Path, scalars: dict[Any, Any]) -> None:
    put(tmp_path, 1)
    with pytest.raises((ValueError, TypeError)):
        save(tmp_path, 2, state(2), scalars)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("part", ["../up", "rank-00000", "", "a b", ".hidden"])
def test_parts_have_plain_names(tmp_path: Path, part: str) -> None:
    with pytest.raises(ValueError, match="cannot name a part"):
        save(tmp_path, 1, {part: {}}, {})


def test_it_says_what_keeps_the_rest_from_being_identical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(saving, "world_size", lambda: 2)
        put(tmp_path, 1)
    loaded = load_latest(tmp_path)
    assert loaded is not None
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    changed = loaded.changed(world_size=1)
    assert len(changed) == 2
    assert changed[0].endswith("-> 77")
    assert changed[1] == "world_size 2 -> 1"


@pytest.mark.parametrize("name", ["ssl-backbones", *LIBRARIES])
def test_another_version_of_the_code_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1)
    loaded = load_latest(tmp_path)
    assert loaded is not None
    assert loaded.changed() == []
    monkeypatch.setattr(checkpoint, "code_versions", lambda: code_versions() | {name: "0.0.1"})
    assert loaded.changed() == [f"{name} {code_versions()[name]} -> 0.0.1"]


def test_a_run_of_a_package_that_did_not_record_its_version_is_told_too() -> None:
    loaded = load_latest(Path(__file__).parent / "fixtures" / "formats_0_1" / "run" / "checkpoints")
    assert loaded is not None
    assert f"ssl-backbones 0.1.0.dev0 -> {ssl_backbones.__version__}" in loaded.changed()
