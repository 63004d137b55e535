"""Every public file of a method is gone on with by its class: the backbone, and the heads where the file has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import LAYOUTS, backbone, under
from golden_lewel import CASES, state_of, tensor
from runs import image_folder, tiny
from torch import Tensor

from ssl_backbones.convert.heads import NAMES, heads
from ssl_backbones.fetch.kept import CHECKPOINT, folder_of, record
from ssl_backbones.methods import METHODS, RunError
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.registry.names import Name
from ssl_backbones.registry.zoo import ORIGINS
from ssl_backbones.train.beginning import begin
from ssl_backbones.train.pretrain import build

CLASSES = {name: METHODS[Name.parse(name).method] for name in ORIGINS if Name.parse(name).method in METHODS}
"""The zoo's names whose method can be trained here, and its configuration."""
FILES = {
    "swav": "SwAV",
    "moco_v2": "MoCo v2",
    "simsiam": "SimSiam",
    "barlow_twins": "bare",
    "vicreg": "bare",
    "dino": "bare",
    "lewel_b": "LEWEL",
    "byol": "EMAN BYOL",
}
"""The layout of each method's public file."""


def recipe(method: str, path: Path, init: Path | str, arch: str = "resnet8", **fields: Any) -> Recipe:
    data = image_folder(path / "photos", 8)
    return tiny(METHODS[method], data, path / "run", model=f"{arch}_{method}", init=str(init), **fields)


def numbered(value: Tensor, number: int) -> Tensor:
    return torch.full_like(value, number)


def heads_of(method: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Heads, slow copy and queue of a state as the authors name and shape them."""

    def moved(here: str, there: str) -> dict[str, Tensor]:
        return {there + name.removeprefix(here): value for name, value in state.items() if name.startswith(here)}

    def mlp(here: str, there: str) -> dict[str, Tensor]:
        return moved(f"{here}.layers.", f"{there}.mlp.")

    if method == "swav":
        return under("module.", {**moved("head.", "projection_head."), "prototypes.weight": state["prototypes.weight"]})
    if method == "moco_v2":
        encoders = moved("head.", "encoder_q.fc.") | moved("key_encoder.head.", "encoder_k.fc.")
        keys = {"queue": state["queue.keys"].T, "queue_ptr": state["queue.pointer"][None]}
        return under("state_dict.module.", encoders | moved("key_encoder.backbone.", "encoder_k.") | keys)
    target = moved("target.backbone.", "target_net.backbone.")
    if method == "byol":
        found = mlp("projector", "online_net.neck") | mlp("target.projector", "target_net.neck")
        return under("state_dict.module.", target | found | mlp("predictor", "predictor"))
    assert method == "lewel_b"
    found = mlp("head.projector", "online_net.neck.proj") | mlp("head.semantic", "online_net.neck.proj_obj")
    found |= mlp("target.head.projector", "target_net.neck.proj")
    found |= mlp("target.head.semantic", "target_net.neck.proj_obj")
    found |= mlp("predictor", "predictor") | mlp("aligned_predictor", "predictor_obj")
    convolutions = {name: value[..., None] if value.ndim == 2 else value for name, value in found.items()}
    return under("state_dict.module.", target | convolutions)


def published(method: str, path: Path, arch: str = "resnet8") -> tuple[Path, dict[str, Tensor]]:
    """A file as a method's authors publish it, in this test's sizes, and the state that it holds."""
    made = build(begin(recipe(method, path, "", arch)))
    state = {name: numbered(value, 2 + at % 100) for at, (name, value) in enumerate(made.state_dict().items())}
    net = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    content = LAYOUTS[FILES[method]][1](net)
    prefix = LAYOUTS[FILES[method]][0]
    flat = under(prefix, net) | heads_of(method, state)
    torch.save(flat if "state_dict." not in prefix else content | {"state_dict": plain(flat)}, path / "theirs.pth")
    return path / "theirs.pth", state


def plain(flat: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("state_dict."): value for name, value in flat.items()}


def test_all_of_the_zoos_methods_with_a_class_are_tried() -> None:
    assert {kind.name for kind in CLASSES.values()} <= FILES.keys()
    assert NAMES.keys() <= FILES.keys()


@pytest.mark.parametrize("arch", ["resnet8", pytest.param("resnet50", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", FILES)
def test_the_backbone_of_a_public_file_is_gone_on_with(method: str, arch: str, tmp_path: Path) -> None:
    net = backbone(arch)
    torch.save(LAYOUTS[FILES[method]][1](net), tmp_path / "theirs.pth")
    found = build(begin(recipe(method, tmp_path, tmp_path / "theirs.pth", arch))).state_dict()
    for name, value in net.items():
        assert torch.equal(found[f"backbone.{name}"], value), name


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("named", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["file", "registered name"])
def test_its_heads_its_slow_copy_and_its_queue_are_gone_on_with(
    method: str, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arch = "resnet50" if named else "resnet8"
    file, state = published(method, tmp_path, arch)
    init: Path | str = file
    if named:
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
        init = next(name for name, kind in CLASSES.items() if kind.name == method)
        folder = folder_of(init)
        folder.mkdir(parents=True)
        file.rename(folder / CHECKPOINT)
        record(folder, "theirs.pth")
    found = build(begin(recipe(method, tmp_path, init, arch, with_state=True))).state_dict()
    kept = {"prototypes.steps", "queue_in_use"}  # of a run alone
    assert found.keys() == state.keys()
    for name in state.keys() - kept:
        if not name.startswith("queues."):
            assert torch.equal(found[name], state[name]), name
    assert f"Of {method}, " in capsys.readouterr().out


def test_recorded_heads_of_lewel_are_read_whole() -> None:
    case = CASES["LEWEL_B_EMAN"]
    found = heads({f"module.{name}": tensor(value) for name, value in case["state_dict"].items()}, "lewel_b")
    expected = {name: value for name, value in state_of(case).items() if not name.startswith("backbone.")}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def without(part: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {name: value for name, value in tensors.items() if part not in name}


@pytest.mark.parametrize(
    ("method", "change", "words"),
    [
        (
            "swav",
            without("projection_head"),
            r"has other heads .* first in head.0.bias \(nothing there and",
        ),
        ("swav", lambda tensors: without("projection_head")(without("prototypes")(tensors)), "holds no heads of swav"),
        (
            "swav",
            lambda tensors: {name: value[:7] if "prototypes" in name else value for name, value in tensors.items()},
            r"first in prototypes.weight \(\(7, 16\) there and \(12, 16\) here\): give --method its sizes",
        ),
    ],
    ids=["half", "none", "others"],
)
def test_heads_that_do_not_fit_are_refused_in_words(
    method: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], words: str, tmp_path: Path
) -> None:
    file, _ = published(method, tmp_path)
    torch.save(change(torch.load(file)), file)
    with pytest.raises(RunError, match=words):
        build(begin(recipe(method, tmp_path, file, with_state=True)))


def test_a_method_whose_heads_are_not_known_is_refused_in_words(tmp_path: Path) -> None:
    torch.save(backbone("resnet8"), tmp_path / "theirs.pth")
    with pytest.raises(RunError, match=r"heads are read of swav, .* and not of vicreg: leave --with_state out"):
        build(begin(recipe("vicreg", tmp_path, tmp_path / "theirs.pth", with_state=True)))
