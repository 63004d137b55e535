"""Whole runs, small ones: what they leave, and that stopping and starting again leaves the same."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import alarm
import checkpoint
import hostile
import pretrain as pretrain_module
import pytest
import runs
import start as start_module
import timm
import torch
from accelerate import Accelerator
from conftest import ROOT
from log import read_log
from loop import Loop, NotFiniteError
from PIL import Image
from recipe import Checkpoints, Monitoring, OptimizerConfig, Recipe
from run_folder import RunFolderError
from runs import STEPS, asked_to_stop, elsewhere, killed, outcome, photo_folder, run, state, stop, tiny
from small_methods import CONFIGS
from torch import Tensor, nn
from two_processes import run_two_processes

import ssl_backbones
from ssl_backbones.data import ImageSourceError, TooManyUnreadableError
from ssl_backbones.data.unreadable import Unreadable
from ssl_backbones.methods import BYOLConfig, LewelBConfig, LewelMConfig, Method, MethodConfig, MoCoV2Config
from ssl_backbones.schedules import ema_momentum
from ssl_backbones.views import LEWEL_B_VIEWS, MultiView
from ssl_backbones.visualizers.alignment import HasAlignmentMaps


@dataclass(frozen=True)
class NoisyConfig(MethodConfig):
    """No method of any use, under the name of another for which there are models."""

    name: ClassVar[str] = "byol"
    noise: bool = True

    def build(self, backbone: nn.Module) -> Noisy:
        return Noisy(backbone, self)


class Noisy(Method):
    """Draws random numbers wherever a method may, and keeps what it saw; its rows do not know each other."""

    def __init__(self, backbone: nn.Module, config: NoisyConfig) -> None:
        super().__init__()
        self.config, self.backbone = config, backbone
        self.register_buffer("centre", torch.zeros(64))
        self.register_buffer("moved", torch.zeros(()))

    def train(self, mode: bool = True) -> Noisy:
        super().train(mode)
        self.backbone.eval()
        return self

    def transform(self, size: int) -> MultiView:
        return MultiView(LEWEL_B_VIEWS, size)

    def forward(self, batch: list[Tensor]) -> dict[str, Tensor | float]:
        first, second = (self.backbone(view) for view in batch)
        noise = torch.randn_like(first) if self.config.noise else 0
        loss = (first - second + 0.1 * noise - self.centre).square().mean()
        return {"loss": loss, "half": loss.detach() / 2, "one": 1.0}

    def on_epoch_start(self, embed: Callable[[], Tensor]) -> None:
        features = embed()
        self.centre.copy_(features.mean(0) + torch.randn(64) if self.config.noise else features.mean(0))

    def on_step_end(self, progress: float) -> dict[str, float]:
        self.moved.add_(torch.randn(()) if self.config.noise else 1)
        return {"progress": progress}


class DeviceReads(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes what would make the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select"):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photo_folder(tmp_path_factory.mktemp("data") / "photos")


@dataclass(frozen=True)
class Whole:
    """A run that nothing disturbed."""

    recipe: Recipe
    path: Path
    read: list[list[str]]
    """What was read from the device in each step."""


def watched(recipe: Recipe) -> Whole:
    """The recipe run from its start to its end."""
    descend, read = Loop.descend, []

    def watch(loop: Loop, batches: Any) -> None:
        with DeviceReads() as reads:
            descend(loop, batches)
        read.append(reads.found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "descend", watch)
        return Whole(recipe, run(recipe).path, read)


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda kind: kind.__name__)
def whole(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A run of every method there is."""
    return watched(tiny(request.param, data, tmp_path_factory.mktemp("whole") / "run"))


@pytest.fixture(scope="module")
def noisy(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return watched(tiny(NoisyConfig, data, tmp_path_factory.mktemp("noisy") / "run"))


@pytest.fixture(scope="module")
def whole_lewel_m(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return watched(tiny(LewelMConfig, data, tmp_path_factory.mktemp("lewel_m") / "run"))


def contents(path: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder that a run leaves, with its time and its bytes."""
    return {
        str(file.relative_to(path)): (file.stat().st_mtime_ns, file.read_bytes())
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in (".lock", "recipe.json")
    }


# What a run leaves


def test_the_backbone_loads_in_plain_timm_and_here(whole: Whole) -> None:
    folder = whole.path / "backbone"
    trained = {
        name.removeprefix("method/backbone."): tensor
        for name, tensor in state(whole.path).items()
        if name.startswith("method/backbone.")
    }
    for model in (
        timm.create_model(f"local-dir:{folder}", pretrained=True),
        ssl_backbones.create_model(str(folder), pretrained=True),
        ssl_backbones.create_model(str(whole.path), pretrained=True),
    ):
        loaded = model.state_dict()
        assert loaded.keys() == trained.keys()
        assert all(torch.equal(loaded[name], trained[name]) for name in trained)
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 64)


def test_the_weights_are_not_those_it_began_with(whole: Whole) -> None:
    torch.manual_seed(whole.recipe.seed)
    began = ssl_backbones.create_model("resnet8", num_classes=0).state_dict()
    ended = timm.create_model(f"local-dir:{whole.path / 'backbone'}", pretrained=True).state_dict()
    assert not any(torch.equal(began[name], ended[name]) for name in began if name.endswith("conv1.weight"))


def test_the_folder_holds_what_is_promised_and_no_pickle(whole: Whole) -> None:
    began, halfway, _ = (line["knn"] for line in read_log(whole.path / "log.jsonl") if "knn" in line)
    steps = [f"checkpoints/step-{step:08}" for step in (STEPS // 2 if halfway > began else 0, STEPS)]
    has_maps = isinstance(whole.recipe.method.build(ssl_backbones.create_model("resnet8")), HasAlignmentMaps)
    expected = {"README.md", "gallery.html", "log.jsonl", "speed.jsonl", "results.json", "backbone/config.json"} | {
        "backbone/model.safetensors",
        *(f"{step}/{name}" for step in steps for name in ("MANIFEST.json", "method.safetensors")),
        *(f"{step}/{name}.safetensors" for step in steps for name in ("optimizer", "before", "rank-00000")),
        *(["alignment_maps.png"] if has_maps else []),
    }
    found = contents(whole.path)
    assert found.keys() == expected
    assert not any(bytes_.startswith((b"\x80\x02", b"\x80\x04", b"PK")) for _, bytes_ in found.values())
    assert Recipe.from_dict(json.loads((whole.path / "recipe.json").read_text())) == whole.recipe


def test_the_log_says_how_it_went(whole: Whole) -> None:
    lines = read_log(whole.path / "log.jsonl")
    measured = [line for line in lines if "knn" in line]
    trained = [line for line in lines if "loss" in line]
    assert lines == sorted(lines, key=lambda line: line["step"])
    assert [(line["step"], line["epoch"]) for line in measured] == [(0, 0), (3, 1), (6, 2)]
    assert all(line.keys() == {"step", "epoch", "std", "rank", "knn"} for line in measured)
    assert [(line["step"], line["epoch"]) for line in trained] == [(2, 0), (4, 1), (6, 1)]
    parts = {"global_loss", "aligned_loss"}
    for line in trained:
        assert parts <= line.keys() or not parts & line.keys()
        if parts <= line.keys():
            assert line["loss"] == pytest.approx((line["global_loss"] + line["aligned_loss"]) / 2, rel=1e-5)
        assert line["lr"] == whole.recipe.lr(line["step"] - 1, STEPS // 2)
        method, progress = whole.recipe.method, (line["step"] - 1) / STEPS
        if isinstance(method, BYOLConfig | LewelBConfig):
            assert line["target_momentum"] == ema_momentum(progress, method.target_momentum)
        if isinstance(method, MoCoV2Config | LewelMConfig):
            assert line["key_momentum"] == method.momentum
    speeds = read_log(whole.path / "speed.jsonl")
    assert [line["step"] for line in speeds] == [line["step"] for line in lines]
    assert speeds[-2]["images_per_second"] > 0


def test_the_results_are_those_of_the_log(whole: Whole) -> None:
    results = json.loads((whole.path / "results.json").read_text())
    before, *_, after = (line for line in read_log(whole.path / "log.jsonl") if "knn" in line)
    for name in ("std", "rank"):
        assert results[name] == {"before": before[name], "after": after[name]}
    assert (results["knn"]["before"], results["knn"]["after"]) == (before["knn"], after["knn"])
    assert results["knn"]["chance"] == 0.5
    assert results["knn"]["gain"] == pytest.approx(after["knn"] - before["knn"])
    assert results["knn"]["gain_95"][0] <= results["knn"]["gain"] <= results["knn"]["gain_95"][1]
    assert (results["steps"], results["unreadable"], results["data"]["images"]) == (STEPS, [], runs.PHOTOS)
    card = (whole.path / "README.md").read_text()
    assert whole.recipe.name in card
    assert f"{100 * after['knn']:.1f}" in card


def test_the_card_and_the_picture_can_be_read(whole: Whole) -> None:
    picture = whole.path / "alignment_maps.png"
    if picture.exists():
        with Image.open(picture) as image:
            assert image.size[1] > 6 * 100


# Stopped and started again


def test_every_method_goes_on_where_it_stopped(whole: Whole, tmp_path: Path) -> None:
    recipe = elsewhere(whole.recipe, tmp_path / "run")
    stop(recipe, 5)
    assert not (tmp_path / "run" / "results.json").exists()
    assert state(tmp_path / "run").keys() >= state(whole.path).keys()
    run(recipe)
    assert outcome(tmp_path / "run") == outcome(whole.path)


@pytest.mark.parametrize("happens", [asked_to_stop, killed])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_it_goes_on_from_any_step(step: int, happens: Callable[[], None], noisy: Whole, tmp_path: Path) -> None:
    recipe = dataclasses.replace(elsewhere(noisy.recipe, tmp_path / "run"), checkpoints=Checkpoints(2, 0))
    if step == STEPS and happens is asked_to_stop:  # nothing is left to stop
        with runs.after(step, happens):
            run(recipe)
    else:
        stop(recipe, step, happens)
        run(recipe)
    assert outcome(tmp_path / "run") == outcome(noisy.path)


def test_it_goes_on_after_it_was_killed_while_leaving(
    noisy: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = elsewhere(noisy.recipe, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(pretrain_module, "leave", lambda *_: killed())
        with pytest.raises(runs.Killed):
            run(recipe)
    assert checkpoint.load_latest(tmp_path / "run" / "checkpoints").step == STEPS
    run(recipe)
    assert outcome(tmp_path / "run") == outcome(noisy.path)


def test_it_goes_on_as_often_as_one_likes(noisy: Whole, tmp_path: Path) -> None:
    recipe = elsewhere(noisy.recipe, tmp_path / "run")
    for step in range(1, STEPS):
        stop(recipe, step)
    run(recipe)
    assert outcome(tmp_path / "run") == outcome(noisy.path)


@pytest.mark.parametrize(("first", "then"), [(2, 0), (0, 2), (2, 1)])
def test_the_number_of_workers_changes_nothing(first: int, then: int, noisy: Whole, tmp_path: Path) -> None:
    recipe = elsewhere(noisy.recipe, tmp_path / "run")
    stop(dataclasses.replace(recipe, workers=first), 2)
    run(dataclasses.replace(recipe, workers=then))
    assert outcome(tmp_path / "run") == outcome(noisy.path)


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": OptimizerConfig("lars", 1.0, exclude_norm_and_bias=True), "layout": "channels_last"},
        {"optimizer": OptimizerConfig("adamw", 0.01, "absolute"), "precision": "bf16"},
        {"accumulation": 2, "log_every": 5},
        {"precision": "auto", "layout": "auto"},
    ],
    ids=["lars", "adamw and bf16", "accumulation", "auto"],
)
def test_it_goes_on_however_it_is_computed(fields: dict[str, Any], data: Path, tmp_path: Path) -> None:
    recipe = tiny(LewelBConfig, data, tmp_path / "whole", **fields)
    if recipe.precision == "auto":  # one choice for both runs: another one would be another run
        stop(recipe, 1)
        (tmp_path / "run").mkdir()
        subprocess.run(["cp", "-r", f"{tmp_path}/whole/.", str(tmp_path / "run")], check=True)
    run(recipe)
    stop(elsewhere(recipe, tmp_path / "run"), 4)
    run(elsewhere(recipe, tmp_path / "run"))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_gradient_scaler_goes_on_with_its_scale(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under fp16, which no CPU trains in; a scale of two's powers changes no number."""
    accelerator_of = start_module.accelerator_of

    def scaling(*args: Any) -> Accelerator:
        accelerator = accelerator_of(*args)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
        return accelerator

    monkeypatch.setattr(start_module, "accelerator_of", scaling)
    recipe = tiny(LewelBConfig, data, tmp_path / "whole", epochs=4)
    run(recipe)
    stop(elsewhere(recipe, tmp_path / "run"), 8)
    scaler = checkpoint.load_latest(tmp_path / "run" / "checkpoints").scalars["scaler"]
    assert (scaler["scale"], scaler["_growth_tracker"]) == (2.0**12, 2)
    run(elsewhere(recipe, tmp_path / "run"))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    ends = (checkpoint.load_latest(tmp_path / name / "checkpoints").scalars["scaler"] for name in ("run", "whole"))
    assert next(ends) == next(ends)


@pytest.mark.parametrize(
    "forgotten",
    ["method/queue.keys", "method/queue.pointer", "method/key_encoder", "method/backbone", "optimizer/", "own/window"],
)
def test_whatever_is_not_restored_is_missed(
    forgotten: str, whole_lewel_m: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = elsewhere(whole_lewel_m.recipe, tmp_path / "run")
    stop(recipe, 5)
    part, _, prefix = forgotten.partition("/")

    def forgetful(*args: Any, **more: Any) -> checkpoint.Checkpoint | None:
        saved = checkpoint.load_latest(*args, **more)
        assert saved is not None
        named = saved.own if part == "own" else saved.tensors[part]
        gone = [name for name in named if name.startswith(prefix)]
        assert gone
        named.update({name: torch.zeros_like(named[name]) for name in gone})
        return saved

    monkeypatch.setattr(start_module, "load_latest", forgetful)
    run(recipe)
    assert outcome(tmp_path / "run") != outcome(whole_lewel_m.path)


def test_a_stop_is_announced_and_has_its_exit_code(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny(BYOLConfig, data, tmp_path / "run")
    before = signal.getsignal(signal.SIGTERM)
    for number, code, step in ((signal.SIGTERM, 143, 2), (signal.SIGINT, 130, 3), (signal.SIGUSR1, 143, 4)):
        with runs.after(step, lambda number=number: signal.raise_signal(number)), pytest.raises(SystemExit) as end:
            run(recipe)
        assert end.value.code == code
        assert f"Stopped after step {step} of {STEPS}; the same command goes on" in capsys.readouterr().out
        assert signal.getsignal(signal.SIGTERM) is before
    run(recipe)
    assert f"Going on after step 4 of {STEPS}." in capsys.readouterr().out


def test_a_finished_run_is_left_alone(whole: Whole, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(whole.path)
    run(whole.recipe)
    assert contents(whole.path) == before
    assert "holds the finished run" in capsys.readouterr().out


def test_another_recipe_or_other_data_is_refused(noisy: Whole, data: Path, tmp_path: Path) -> None:
    recipe = elsewhere(noisy.recipe, tmp_path / "run")
    stop(recipe, 1)
    other = photo_folder(tmp_path / "other", classes=("bag", "coat"))
    for there in (tmp_path / "run", noisy.path):
        before = contents(there)
        with pytest.raises(RunFolderError, match=r"another recipe \(seed is 5 there and 6 here\)"):
            run(dataclasses.replace(recipe, seed=6, out=str(there)))
        with pytest.raises(ImageSourceError, match=r"not those that the run in .* began with"):
            run(dataclasses.replace(recipe, data=str(other), out=str(there)))
        assert contents(there) == before


def test_the_same_data_may_lie_elsewhere(noisy: Whole, tmp_path: Path) -> None:
    recipe = elsewhere(noisy.recipe, tmp_path / "run")
    stop(recipe, 4)
    run(dataclasses.replace(recipe, data=str(photo_folder(tmp_path / "moved"))))
    assert outcome(tmp_path / "run") == outcome(noisy.path)


def test_what_is_measured_may_change_on_the_way(data: Path, tmp_path: Path) -> None:
    k5 = tiny(BYOLConfig, data, tmp_path / "k5", monitoring=Monitoring(k=5, bank=20))
    run(k5)
    recipe = tiny(BYOLConfig, data, tmp_path / "run")
    stop(recipe, 4)
    run(elsewhere(k5, tmp_path / "run"))
    assert outcome(tmp_path / "run")["results"] == outcome(tmp_path / "k5")["results"]
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["monitoring"]["k"] == 5


# How a step is made


def test_micro_batches_add_up_to_the_batch(data: Path, tmp_path: Path) -> None:
    once = tiny(NoisyConfig, data, tmp_path / "once", {"noise": False})
    runs_ = [run(dataclasses.replace(elsewhere(once, tmp_path / f"{n}"), accumulation=n)).path for n in (1, 2, 4)]
    first, *others = ([state(path), read_log(path / "log.jsonl")] for path in runs_)
    for tensors, log in others:
        torch.testing.assert_close(tensors, first[0], rtol=1e-4, atol=1e-5)
        assert [line.keys() for line in log] == [line.keys() for line in first[1]]
        for line, expected in zip(log, first[1], strict=True):
            assert line == pytest.approx(expected, rel=1e-4)
            assert line.get("half", 0) == pytest.approx(line.get("loss", 0) / 2)
            assert line.get("one", 1) == 1


def test_processes_exchange_gradients_once_a_step(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, no_sync = [], Accelerator.no_sync
    monkeypatch.setattr(Accelerator, "no_sync", lambda *args: (alone.append(1), no_sync(*args))[1])
    run(tiny(NoisyConfig, data, tmp_path / "run", accumulation=4))
    assert len(alone) == 3 * STEPS


def test_the_last_step_is_logged_wherever_it_falls(data: Path, tmp_path: Path) -> None:
    lines = read_log(run(tiny(BYOLConfig, data, tmp_path / "run", log_every=4)).path / "log.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [4, 6]


def test_methods_take_one_step_for_all_micro_batches(data: Path, tmp_path: Path) -> None:
    """Batch statistics are those of a micro-batch, so the numbers differ; the counters do not."""
    recipe = tiny(MoCoV2Config, data, tmp_path / "run", accumulation=2)
    path = run(recipe).path
    lines = [line for line in read_log(path / "log.jsonl") if "loss" in line]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert [line["lr"] for line in lines] == [recipe.lr(step - 1, 3) for step in (2, 4, 6)]
    assert state(path)["method/queue.pointer"].item() == STEPS * 8 % 24


def test_a_tracker_is_told(data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = run(tiny(MoCoV2Config, data, tmp_path / "run", trackers=("tensorboard",))).path
    events = EventAccumulator(str(path / "ssl-backbones")).Reload()
    lines = [line for line in read_log(path / "log.jsonl") if "loss" in line]
    for name in ("loss", "lr", "key_momentum"):
        told = [(event.step, event.value) for event in events.Scalars(name)]
        assert told == [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines]
    assert {"std", "rank", "knn", "images_per_second"} <= set(events.Tags()["scalars"])


def test_a_tracker_keeps_what_it_was_told_when_the_run_is_stopped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ended, end_training = [], Accelerator.end_training
    monkeypatch.setattr(Accelerator, "end_training", lambda self: (ended.append(self), end_training(self)))
    stop(tiny(MoCoV2Config, data, tmp_path / "run", trackers=("tensorboard",)), 4)
    assert len(ended) == 1
    events = EventAccumulator(str(tmp_path / "run" / "ssl-backbones")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4]


def test_nothing_is_read_from_the_device_between_two_lines_of_the_log(whole: Whole) -> None:
    assert whole.read == [[]] * STEPS


# Two processes

SYNCHRONISED: dict[str, tuple[type[MethodConfig], dict[str, Any]]] = {
    "lewel_b": (LewelBConfig, {"target_bn": "sync"}),
    "moco_v2": (MoCoV2Config, {"key_bn": "sync"}),
}
"""Methods whose batch statistics are those of the whole batch, however many processes share it."""
SPLIT: dict[str, tuple[type[MethodConfig], dict[str, Any]]] = {
    "lewel_m, shuffled": (LewelMConfig, {"key_bn": "shuffle", "bn_splits": 2}),
}
"""Methods whose batch statistics are those of half the batch, be the halves in one process or in two."""
UNLIKE: dict[str, tuple[type[MethodConfig], dict[str, Any]]] = {"byol, apart": (BYOLConfig, {"target_bn": "plain"})}
"""Two processes are not one: each has its own batch statistics."""
ALL = SYNCHRONISED | SPLIT | UNLIKE


@dataclass(frozen=True)
class Both:
    """The same runs in one process, and on each of two."""

    alone: dict[str, dict[str, Tensor]]
    ranks: list[dict[str, dict[str, Tensor]]]
    path: Path


@pytest.fixture(scope="module")
def both(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    path = tmp_path_factory.mktemp("both")

    def parts(folder: str) -> dict[str, runs.Part]:
        whole = {name: tiny(kind, data, path / folder / name, choices) for name, (kind, choices) in ALL.items()}
        return {name: runs.Part(recipe) for name, recipe in whole.items()}

    def part(name: str, **more: Any) -> dict[str, runs.Part]:
        kind, choices = ALL[name.split(" from ")[0]]
        return {name: runs.Part(tiny(kind, data, path / "two" / name, choices), **more)}

    double = torch.float64
    runs.as_rank(0, part("lewel_b from one", stop_at=4, go_on=False), double)
    stopped = [part(f"{name} from two", stop_at=4) for name in ("lewel_m, shuffled", "byol, apart")]
    there = parts("two") | {name: one for many in stopped for name, one in many.items()} | part("lewel_b from one")
    there |= part("moco_v2 from two", stop_at=4, go_on=False)
    ranks = run_two_processes(runs.as_rank, there, double)
    alone = runs.as_rank(0, parts("one") | part("moco_v2 from two"), double)
    return Both(alone, ranks, path)


@pytest.mark.parametrize("name", ALL)
def test_two_processes_end_alike(name: str, both: Both) -> None:
    first, second = (rank[name] for rank in both.ranks)
    ends_alike(first, second, but_for="nothing" if name in SYNCHRONISED else "running_")


def ends_alike(first: dict[str, Tensor], second: dict[str, Tensor], but_for: str) -> None:
    """Two processes hold the same tensors, batch statistics aside where each has its own."""
    assert first.keys() == second.keys()
    for key in first:
        assert but_for in key or torch.equal(first[key], second[key]), key


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_every_method_trains_in_two_processes(kind: type[MethodConfig], data: Path, tmp_path: Path) -> None:
    parts = {"whole": runs.Part(tiny(kind, data, tmp_path / "whole"))}
    parts["again"] = runs.Part(tiny(kind, data, tmp_path / "again"), stop_at=4)
    first, second = run_two_processes(runs.as_rank, parts, torch.float32)
    ends_alike(first["whole"], second["whole"], but_for="running_")
    for rank in (first, second):
        ends_alike(rank["whole"], rank["again"], but_for="nothing")


@pytest.mark.parametrize("name", SYNCHRONISED | SPLIT)
def test_two_processes_are_one(name: str, both: Both) -> None:
    for key, tensor in both.alone[name].items():
        if name in SYNCHRONISED or "running" not in key:
            torch.testing.assert_close(both.ranks[0][name][key], tensor, rtol=0, atol=1e-10)
    logs = (read_log(both.path / folder / name / "log.jsonl") for folder in ("one", "two"))
    for one, two in zip(*logs, strict=True):
        if name in SYNCHRONISED or "loss" in one:
            assert two == pytest.approx(one, abs=1e-6)


@pytest.mark.parametrize("name", UNLIKE)
def test_two_processes_with_statistics_of_their_own_are_not_one(name: str, both: Both) -> None:
    difference = max((both.ranks[0][name][key] - tensor).abs().max() for key, tensor in both.alone[name].items())
    assert difference > 1e-3
    statistics = "backbone.bn1.running_mean"
    assert not torch.equal(both.ranks[0][name][statistics], both.ranks[1][name][statistics])
    published = timm.create_model(f"local-dir:{both.path / 'two' / name / 'backbone'}", pretrained=True).state_dict()
    torch.testing.assert_close(published["bn1.running_mean"].double(), both.ranks[0][name][statistics])


@pytest.mark.parametrize("name", ["lewel_m, shuffled", "byol, apart"])
def test_two_processes_stop_together_and_go_on(name: str, both: Both) -> None:
    for rank in both.ranks:
        assert all(torch.equal(rank[f"{name} from two"][key], tensor) for key, tensor in rank[name].items())
    went_on, whole = both.path / "two" / f"{name} from two", both.path / "two" / name
    assert (went_on / "log.jsonl").read_text() == (whole / "log.jsonl").read_text()
    assert json.loads((went_on / "results.json").read_text()) == json.loads((whole / "results.json").read_text())


def test_the_number_of_processes_may_change_on_the_way(both: Both) -> None:
    for key, tensor in both.alone["lewel_b"].items():
        torch.testing.assert_close(both.ranks[0]["lewel_b from one"][key], tensor, rtol=0, atol=1e-10)
    for key, tensor in both.alone["moco_v2"].items():
        torch.testing.assert_close(both.alone["moco_v2 from two"][key], tensor, rtol=0, atol=1e-10)


# Photos as people have them


def test_unlabelled_photos_are_enough(tmp_path: Path) -> None:
    recipe = tiny(LewelMConfig, photo_folder(tmp_path / "data", classes=()), tmp_path / "run")
    results = outcome(run(recipe).path)["results"]
    assert "knn" not in results
    assert results["rank"]["after"] > 1
    assert all("knn" not in line for line in read_log(tmp_path / "run" / "log.jsonl"))


def test_validation_photos_are_the_queries(data: Path, tmp_path: Path) -> None:
    held_out = photo_folder(tmp_path / "held_out", 10)
    results = outcome(run(tiny(BYOLConfig, data, tmp_path / "run", validation=str(held_out))).path)["results"]
    assert (results["knn"]["queries"], results["knn"]["bank"]) == (10, runs.PHOTOS)
    assert results["knn"]["protocol"] == "held-out queries"


def test_a_parquet_file_will_do(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"image": {"bytes": hostile.photo(seed=n), "path": None}, "label": n % 3 - 1} for n in range(18)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    results = outcome(run(tiny(BYOLConfig, tmp_path / "train.parquet", tmp_path / "run")).path)["results"]
    assert results["knn"]["queries"] == 12  # a label of -1 is none


def test_photos_of_every_kind_are_seen(data: Path, tmp_path: Path) -> None:
    mixed = photo_folder(tmp_path / "data", 20)
    odd = {"grey.png": hostile.encode(hostile.ramp()), "cmyk.jpg": hostile.cmyk("JPEG")}
    odd |= {"deep.png": hostile.sixteen_bits("PNG"), "palette.png": hostile.palette(), "turned.jpg": hostile.turned(6)}
    for name, file in odd.items():
        (mixed / "bag" / name).write_bytes(file)
    results = outcome(run(tiny(BYOLConfig, mixed, tmp_path / "run")).path)["results"]
    assert (results["unreadable"], results["data"]["images"]) == ([], 25)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_photo_is_named_and_left_out(workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = photo_folder(tmp_path / "data")
    (broken / "bag" / "torn.jpg").write_bytes(hostile.photo()[:300])
    path = run(tiny(BYOLConfig, broken, tmp_path / "run", workers=workers)).path
    assert outcome(path)["results"]["unreadable"] == ["bag/torn.jpg"]
    assert [record for record in caplog.records if "torn.jpg" in record.getMessage()]
    assert "torn.jpg" in json.dumps(checkpoint.load_latest(path / "checkpoints").scalars["unreadable"])


def test_a_broken_photo_is_remembered_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = photo_folder(tmp_path / "data")
    (broken / "bag" / "torn.jpg").write_bytes(hostile.photo()[:300])
    recipe = tiny(BYOLConfig, broken, tmp_path / "run")
    stop(recipe, 4)
    monkeypatch.setattr(Unreadable, "add", lambda *_: None)
    assert outcome(run(recipe).path)["results"]["unreadable"] == ["bag/torn.jpg"]


def test_too_many_broken_photos_end_the_run(tmp_path: Path) -> None:
    broken = photo_folder(tmp_path / "data")
    for number in range(3):
        (broken / "hat" / f"torn{number}.jpg").write_bytes(b"")
    with pytest.raises(TooManyUnreadableError, match=r"3 of 29 photos cannot be read(.|\n)*torn0(.|\n)*torn2"):
        run(tiny(BYOLConfig, broken, tmp_path / "run"))
    run(tiny(BYOLConfig, broken, tmp_path / "run", unreadable_share=0.2))


# What is refused


def refused(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence with which a command line ends."""
    monkeypatch.setattr(sys, "argv", ["pretrain.py", *words])
    monkeypatch.setattr(Loop, "run", lambda *_: pytest.fail("it began to work"))
    runs.forget()
    with pytest.raises(SystemExit) as end:
        pretrain_module.main()
    runs.forget()
    assert end.value.code == 2
    said = capsys.readouterr().err.strip()
    assert "Traceback" not in said
    assert said.count("\n") == 0, said
    return said


SMALL = "--size 16 --batch-size 8 --epochs 3 --method.bn-splits 2 --workers 0"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("resnet8_byoll", "'resnet8_byoll' is not a recipe"),
        ("--epoch 3", "--epoch is not a field of the recipe sample; the nearest: --epochs"),
        ("--epochs three", "--epochs is three, but must be a whole number"),
        ("--epochs 0", "epochs is 0, but must be at least 1"),
        ("resnet50_byol.in1k_200ep", "has no data here: name a folder"),
    ],
)
def test_a_command_that_makes_no_run(
    words: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in refused(words.split(), monkeypatch, capsys)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--data nowhere", "'nowhere' does not exist"),
        ("--data empty", "there is no image in"),
        ("--batch-size 32", "26 images are fewer than the batch of 32"),
        ("--accumulation 8 --batch-size 12", "accumulation is 8, but must be a divisor of the batch size, 12"),
        ("--validation nowhere", "'nowhere' does not exist"),
        ("--precision fp16", "this cpu device does not train in fp16; use bf16, fp32 or auto"),
        ("--out photos/bag/00.jpg", "photos/bag/00.jpg cannot be written to"),
        ("--out photos", "photos is not a run's folder"),
        ("--model resnet9_lewel_m", "no model, and no folder, is called 'resnet9_lewel_m'"),
        ("--model resnet20_byol", "model is 'resnet20_byol', but must be resnet20_lewel_m"),
        ("--method.groups 3", "groups=3 must divide projection_dim=64"),
        ("--method.groups 128 --method.projection_dim 128", "groups=128 must divide the backbone's width=64"),
        ("--trackers tensorbored", "'tensorbored' cannot track the run (Accelerate knows no such tracker)"),
        ("--trackers clearml", "'clearml' cannot track the run (its package is not installed)"),
        ("--method.bn-splits 16", "a batch of 8 cannot be normalised in 16 groups: lower bn_splits"),
    ],
)
def test_a_run_that_cannot_work_is_refused_in_a_sentence(
    words: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo_folder(tmp_path / "photos")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    usual = [*SMALL.split(), "--data", "photos", "--out", "run"]
    assert sentence in refused([*usual, *words.split()], monkeypatch, capsys)
    assert not any((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_is_closed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    words = [*SMALL.split(), "--data", str(data), "--out", str(tmp_path / "closed" / "run")]
    assert "cannot be written to" in refused(words, monkeypatch, capsys)


def test_processes_that_cannot_share_the_batch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(start_module, "world_size", lambda: 3)
    words = [*SMALL.split(), "--data", str(data), "--out", str(tmp_path / "run")]
    said = refused(words, monkeypatch, capsys)
    assert "a batch of 8 images cannot be shared evenly by 3 processes" in said
    assert not (tmp_path / "run").exists()


def test_a_mistake_does_not_take_the_folder(data: Path, tmp_path: Path) -> None:
    recipe = tiny(BYOLConfig, data, tmp_path / "run")
    with pytest.raises(start_module.UnfitError):
        run(dataclasses.replace(recipe, model="resnet9_byol"))
    run(recipe)


def test_another_process_in_the_folder_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    holding = "import sys; sys.path.insert(0, sys.argv[1]); from run_folder import claim; claim(sys.argv[2], {}); "
    with subprocess.Popen(
        [sys.executable, "-c", holding + "print('held', flush=True); input()", ROOT / "training", tmp_path / "run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        words = [*SMALL.split(), "--data", str(data), "--out", str(tmp_path / "run")]
        assert f"is in use by process {other.pid}" in refused(words, monkeypatch, capsys)
        other.kill()


@pytest.mark.parametrize("where", ["loss", "weights"])
def test_numbers_that_are_none_end_the_run_and_are_not_saved(
    where: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(BYOLConfig, data, tmp_path / "run", checkpoints=Checkpoints(1, 0), log_every=100)

    def poison() -> None:
        next(iter(loops[0].method.parameters())).data.view(-1)[0] = torch.nan

    loops: list[Loop] = []
    run_loop = Loop.run
    monkeypatch.setattr(Loop, "run", lambda loop, log: (loops.append(loop), run_loop(loop, log))[1])
    if where == "loss":
        recipe = dataclasses.replace(recipe, log_every=1, checkpoints=Checkpoints(0, 0))
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with runs.after(2 if where == "weights" else 1, poison), pytest.raises(NotFiniteError, match="lower learning rate"):
        run(recipe)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    left = checkpoint.load_latest(tmp_path / "run" / "checkpoints")
    assert left is not None
    assert all(tensor.isfinite().all() for named in left.tensors.values() for tensor in named.values())
    assert left.step == (1 if where == "weights" else 0)


# What a run says of itself


def test_a_contrastive_loss_at_chance_is_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alarm, "SHORTEST", 4)
    frozen = OptimizerConfig("sgd", 1e-12, "absolute", weight_decay=0.0)
    recipe = tiny(MoCoV2Config, data, tmp_path / "run", {"temperature": 5.0}, optimizer=frozen, epochs=6, log_every=1)
    stop(recipe, 10)
    run(recipe)
    said = capsys.readouterr().out
    assert said.count("The loss has been at chance for") == 1
    assert "it learns nothing. Likely causes: a learning rate" in said


def test_collapsed_features_are_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alarm, "SHORTEST", 4)
    descend = Loop.descend

    def collapse(loop: Loop, batches: Any) -> None:
        descend(loop, batches)
        for name, weights in loop.method.backbone.named_parameters():
            if name.endswith("weight"):
                weights.data.mul_(0.5)

    monkeypatch.setattr(Loop, "descend", collapse)
    run(tiny(BYOLConfig, data, tmp_path / "run", epochs=8))
    said = capsys.readouterr().out
    began = read_log(tmp_path / "run" / "log.jsonl")[0]
    assert said.count("The features have been collapsed for") == 1
    assert f"effective rank 1, at first {began['rank']:.3g})" in said


def test_a_healthy_run_hears_no_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alarm, "SHORTEST", 8)
    more = photo_folder(tmp_path / "data", 64)
    choices = {"momentum": 0.99, "queue_size": 32}
    healthy = OptimizerConfig("sgd", 5.0)
    run(tiny(MoCoV2Config, more, tmp_path / "run", choices, optimizer=healthy, epochs=5, log_every=1))
    said = capsys.readouterr().out
    assert "chance for" not in said
    assert "collapsed" not in said


# As a program


def command(*words: str) -> list[str]:
    return [sys.executable, "-W", "error::FutureWarning", str(ROOT / "training" / "pretrain.py"), *words]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}


def wait_for(line: str, process: subprocess.Popen[str]) -> str:
    """What a process printed until a line came."""
    assert process.stdout is not None
    seen = ""
    for printed in process.stdout:
        seen += printed
        if re.search(line, printed):
            return seen
    raise AssertionError(f"{line!r} never came: {seen}")


def small_program(data: Path, out: Path, epochs: int) -> list[str]:
    """What is said to the program for a run of one line of the log a step."""
    small = f"--size 16 --epochs {epochs} --batch-size 8 --method.bn-splits 2 --log-every 1 --workers 2"
    small += " --precision fp32 --layout contiguous --schedule.warmup-epochs 0"
    return ["sample", *small.split(), "--data", str(data), "--out", str(out)]


def started(words: list[str], **more: Any) -> subprocess.Popen[str]:
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(words, text=True, env=environment(), **both, **more)


def test_a_program_told_to_end_saves_and_can_be_started_again(data: Path, tmp_path: Path) -> None:
    words = command(*small_program(data, tmp_path / "run", 200))
    with started(words, start_new_session=True) as process:
        wait_for("step 1/600", process)
        os.killpg(process.pid, signal.SIGTERM)  # as a cluster does, to the workers as well
        began = time.monotonic()
        said = process.communicate(timeout=30)[0]
    assert process.returncode == 143, said
    assert time.monotonic() - began < 10
    step = int(re.search(r"Stopped after step (\d+) of 600", said)[1])
    assert checkpoint.load_latest(tmp_path / "run" / "checkpoints").step == step
    assert "Traceback" not in said
    with started(words) as process:
        wait_for(f"Going on after step {step} of 600", process)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[0]
    assert process.returncode in (130, -signal.SIGINT), said


@pytest.mark.slow
def test_torchrun_ends_both_processes_and_finishes_later(data: Path, tmp_path: Path) -> None:
    """Without ACCELERATE_USE_CPU: where there is no accelerator, there is nothing else to use."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*torchrun, str(ROOT / "training" / "pretrain.py"), *small_program(data, tmp_path / "run", 40)]
    with started(words) as process:
        wait_for(r"step \d+/120", process)
        process.terminate()
        said = process.communicate(timeout=60)[0]
    step = int(re.search(r"Stopped after step (\d+) of 120", said)[1])
    assert 0 < step < 120
    assert checkpoint.load_latest(tmp_path / "run" / "checkpoints").step == step
    with started(words) as process:
        said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert "on 2 processes (cpu)" in said
    assert f"Going on after step {step} of 120" in said
    assert json.loads((tmp_path / "run" / "results.json").read_text())["compute"]["processes"] == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("kind", [BYOLConfig, LewelMConfig], ids=lambda kind: kind.__name__)
def test_a_compiled_run_goes_on_where_it_stopped(kind: type[MethodConfig], data: Path, tmp_path: Path) -> None:
    recipe = tiny(kind, data, tmp_path / "whole", precision="bf16", compile=True)
    run(recipe)
    stop(elsewhere(recipe, tmp_path / "run"), 4)
    run(elsewhere(recipe, tmp_path / "run"))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
