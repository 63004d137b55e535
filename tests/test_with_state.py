"""A run that goes on with the heads, the target and the queue of another, on other images."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from published import here, publishing
from runs import image_folder, run, stop, tiny
from small_methods import CONFIGS, Drawn, batch_of, features_of, mined, small_method

from ssl_backbones import __main__
from ssl_backbones.fetch import from_hub
from ssl_backbones.hub.export import save_backbone
from ssl_backbones.methods import (
    BYOLConfig,
    DeepClusterConfig,
    InstDisc,
    InstDiscConfig,
    MethodConfig,
    MoCoV2Config,
    PCLConfig,
    from_run,
)
from ssl_backbones.models.teacher_branch import TeacherBranch
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import ScheduleConfig
from ssl_backbones.runs import saving
from ssl_backbones.runs.checkpoint import load_latest
from ssl_backbones.runs.run_folder import RunFolderError
from ssl_backbones.train.beginning import begin
from ssl_backbones.train.claiming import check_fields
from ssl_backbones.train.prepare import UnfitError
from ssl_backbones.train.pretrain import build
from ssl_backbones.typed.words import read

WITH_ROWS = [DeepClusterConfig, InstDiscConfig, PCLConfig]
"""The methods that have a row for each image."""


def left(kind: type[MethodConfig], path: Path) -> tuple[Recipe, dict[str, torch.Tensor]]:
    """The folder of a run of a method, and the state in it."""
    recipe = tiny(kind, image_folder(path / "photos", 8), path / "run")
    method = small_method(kind, seed=3)
    method.dataset(mined(Drawn(8)), 16, 0)  # what has a row for each image gets its rows
    for value in method.state_dict().values():
        value.copy_(torch.rand(value.shape) if value.is_floating_point() else value)
    save_backbone(method.published, path / "run" / "backbone", "resnet8", input_size=(3, 16, 16))
    (path / "run" / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    saving.save(path / "run" / "checkpoints", 7, {"method": method.state_dict()}, {})
    return recipe, method.state_dict()


def onward(kind: type[MethodConfig], path: Path, init: Path, **fields: object) -> Recipe:
    """A run on other images that starts from the folder of another, with its state."""
    data = image_folder(path / "others", 30, ("cat", "dog", "fox"))
    return tiny(kind, data, path / "onward", init=str(init), with_state=True, **fields)


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.name)
def test_every_methods_state_is_taken_over(kind: type[MethodConfig], tmp_path: Path, capsys: pytest.CaptureFixture):
    _, state = left(kind, tmp_path)
    method = build(begin(onward(kind, tmp_path, tmp_path / "run")))
    found = method.state_dict()
    rows = {name for name in state if name.endswith(("labels", "memory.keys"))}
    measured = {name for name in state if name in {f"branch.{each}" for each in TeacherBranch.measured_anew}}
    numbers = {name for name in state if name.endswith(".numbers")}
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state.keys() - rows - measured - numbers)
    assert bool(rows) == (kind in WITH_ROWS)
    assert all(not found[name].numel() for name in rows), "other images have other labels"
    assert not any(found[name].any() for name in measured - {"branch.map_scale"}), "nor another teacher's mean"
    assert all((found[name] == -1).all() for name in numbers), "nor the numbers of the keys in a queue"
    taken = len(state) - len(rows) - len(measured) - len(numbers)
    assert f"The state of {kind.name} is taken over: {taken} tensors" in capsys.readouterr().out


@pytest.mark.parametrize("kind", WITH_ROWS, ids=lambda kind: kind.name)
def test_rows_of_images_are_filled_before_a_loss_reads_them(kind: type[MethodConfig], tmp_path: Path):
    """Also where the run that goes on would have begun to read them later than the one before it."""
    left(kind, tmp_path)
    later = {"instance_epochs": 5} if kind is PCLConfig else {}
    method = build(begin(onward(kind, tmp_path, tmp_path / "run", choices=later)))
    method.dataset(mined(Drawn(8)), 16, 0)
    method.on_epoch_start(lambda: torch.randn(8, features_of(method)))
    batch = batch_of(method)
    loss = method.eval()(batch)["loss"]
    for name, buffer in method.named_buffers():
        if name.endswith(("labels", "memory.keys")) and not buffer.any():
            buffer.add_(1)
    torch.testing.assert_close(method(batch)["loss"], loss)


def test_the_constant_of_nce_is_of_the_images_at_hand(tmp_path: Path):
    """N of them times the mean that was taken over: what a run on another number of images goes on with."""
    _, state = left(InstDiscConfig, tmp_path)
    method = build(begin(onward(InstDiscConfig, tmp_path, tmp_path / "run")))
    assert isinstance(method, InstDisc)
    for count in (30, 90):
        method.dataset(Drawn(count), 16, 0)
        constant = method.constant(torch.full((2, 6), 5.0))
        assert constant.item() == pytest.approx(count * state["mean_exponential"].item(), rel=1e-6)


def test_what_was_published_is_gone_on_with_on_other_images(tmp_path: Path):
    """From one run over its publication to another: the second begins with the last state of the first."""
    first = tiny(MoCoV2Config, image_folder(tmp_path / "photos"), tmp_path / "first")
    run(first)
    words = ["publish", first.out, "--repo", "org/name", "--data_terms", "CC0", "--with_state"]
    assert __main__.main([*words, "--dry_run", "--out", str(tmp_path / "published")]) == 0
    shutil.rmtree(first.out)
    second = onward(MoCoV2Config, tmp_path, tmp_path / "published")
    began = build(begin(second)).state_dict()
    run(second)
    wanted = load_latest(tmp_path / "published" / "checkpoints")
    assert wanted is not None
    assert all(torch.equal(began[name], value) for name, value in wanted.tensors["method"].items())
    plain = json.loads((tmp_path / "onward" / "recipe.json").read_text())
    assert (plain["with_state"], plain["start"]["labels"]) == (True, "none")
    assert plain["start"]["images"] == "26 images of photos"


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("longer", [{}, {"schedule": ScheduleConfig(per="step", warmup_epochs=1)}, {"max_steps": 9}])
def test_a_finished_run_that_is_to_be_longer_is_gone_on_from(longer: dict, finished: bool, tmp_path: Path):
    """By the words of the refusal, which are of no use where more than the length differs, or nothing is finished."""
    recipe, state = left(BYOLConfig, tmp_path)
    if finished:
        (tmp_path / "run" / "results.json").write_text("{}")
    for other in ({}, {"batch_size": 4}):
        with pytest.raises(RunFolderError, match="holds the run of another recipe") as refused:
            check_fields(replace(recipe, epochs=9, **longer, **other))
        _, found, words = str(refused.value).partition(", or go on from its end: ")
        assert bool(found) == (finished and not other)
        if found:
            onward = read(Recipe, shlex.split(words.replace("NEW", str(tmp_path / "new"))), "", "", usual=recipe)
            begun = build(begin(onward)).state_dict()
            assert all(torch.equal(begun[name], value) for name, value in state.items())


@pytest.mark.parametrize("below", ["", "backbone"])
def test_a_repository_and_a_folder_hold_it_alike(below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    left(BYOLConfig, tmp_path)
    assert from_run.state_folder(str(tmp_path / "run" / below)) == tmp_path / "run"
    asked = {}

    def download(repository: str, **how: object) -> str:
        asked.update({"repository": repository, **how})
        return str(tmp_path / "run")

    monkeypatch.setattr(from_hub, "snapshot_download", download)
    assert from_run.state_folder("hf-hub:org/name@v1") == tmp_path / "run"
    assert asked == {"repository": "org/name", "revision": "v1", "allow_patterns": ["recipe.json", "checkpoints/*"]}


class TestRefusals:
    def refused(self, recipe: Recipe, message: str) -> None:
        with pytest.raises(UnfitError, match=message) as found:
            run(recipe)
        assert "\n" not in str(found.value)
        assert not Path(recipe.out).exists()

    def test_another_method(self, tmp_path: Path):
        left(BYOLConfig, tmp_path)
        recipe = onward(MoCoV2Config, tmp_path, tmp_path / "run")
        self.refused(recipe, "holds the state of byol, and moco_v2 is to be trained: .* leave --with_state out")

    def test_other_sizes(self, tmp_path: Path):
        left(BYOLConfig, tmp_path)
        recipe = onward(BYOLConfig, tmp_path, tmp_path / "run", choices={"projection_dim": 8})
        self.refused(recipe, r"has other sizes than this recipe's, first in \S+ \(\(.*16\) there and \(.*8\) here\)")

    def test_no_checkpoint(self, tmp_path: Path):
        left(BYOLConfig, tmp_path)
        shutil.rmtree(tmp_path / "run" / "checkpoints")
        self.refused(onward(BYOLConfig, tmp_path, tmp_path / "run"), "holds no checkpoint")

    def test_the_checkpoint_of_another_backbone(self, tmp_path: Path):
        left(BYOLConfig, tmp_path)
        other = small_method(BYOLConfig, seed=4).backbone
        save_backbone(other, tmp_path / "run" / "backbone", "resnet8", input_size=(3, 16, 16))
        self.refused(onward(BYOLConfig, tmp_path, tmp_path / "run"), "is of another backbone than the one beside it")

    def test_weights_without_a_run(self, tmp_path: Path):
        recipe = onward(BYOLConfig, tmp_path, Path("resnet8_byol.imagenette32_60ep"))
        self.refused(recipe, r"recipe\.json cannot be read .*: name the folder that ssl-backbones pretrain wrote")

    def test_no_start(self, tmp_path: Path):
        with pytest.raises(ValueError, match="with_state is True, but must be false without --init"):
            tiny(BYOLConfig, image_folder(tmp_path / "photos"), tmp_path / "run", with_state=True)


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of the Hub's own client
def test_a_state_on_the_hub_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Published with its state, named as hf-hub:, gone on with on other images, and then without the Hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    first = tiny(MoCoV2Config, image_folder(tmp_path / "photos"), tmp_path / "first")
    run(first)
    with here():
        publishing(Path(first.out), "--with_state", "--licence", "cc-by-nc-4.0", repo="org/mine")
        recipe = onward(MoCoV2Config, tmp_path, Path("hf-hub:org/mine"))
        found = begin(recipe)
        state = build(found).state_dict()
        stop(recipe, 4)
    wanted = load_latest(tmp_path / "first" / "checkpoints")
    assert wanted is not None
    assert all(torch.equal(state[name], value) for name, value in wanted.tensors["method"].items())
    start = found.recipe.start
    assert start is not None
    assert (start.licence, start.source, start.labels) == ("cc-by-nc-4.0", "hf-hub:org/mine", "none")
    assert start.images == "26 images of photos"
    shutil.rmtree(tmp_path / "cache")
    run(recipe)
    results = json.loads((tmp_path / "onward" / "results.json").read_text())
    assert results["start"]["licence"] == "cc-by-nc-4.0"
