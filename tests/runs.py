"""Whole runs small enough for tests, with what is to be compared of them."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from conftest import drawn_image
from small_methods import leave_teacher, mined, small_config

from ssl_backbones.data import open_images
from ssl_backbones.distributed import world_size
from ssl_backbones.methods import MethodConfig
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import Checkpoints, Monitoring, OptimizerConfig, Promise, ScheduleConfig
from ssl_backbones.runs import checkpoint
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train import ending
from ssl_backbones.train import pretrain as pretrain_module
from ssl_backbones.train import results as results_module
from ssl_backbones.train.loop import Loop
from ssl_backbones.train.run import finish
from ssl_backbones.views import CenterCrop, MultiView

IMAGES, BATCH, EPOCHS = 26, 8, 2
"""Three steps an epoch, with two images left over."""
STEPS = EPOCHS * (IMAGES // BATCH)


def image_folder(path: Path, count: int = IMAGES, classes: tuple[str, ...] = ("bag", "hat")) -> Path:
    """A folder of small JPEGs, in class folders one after the other; without classes, in none."""
    for number in range(count):
        below = path / classes[number % len(classes)] if classes else path
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{number:02}.jpg").write_bytes(drawn_jpeg(number))
    return path


@cache
def drawn_jpeg(number: int) -> bytes:
    """A small JPEG, the same for a number."""
    file = io.BytesIO()
    drawn_image(number, 24 + number % 5, 28).save(file, "JPEG")
    return file.getvalue()


def tiny(
    kind: type[MethodConfig], data: Path, out: Path, choices: dict[str, Any] | None = None, **fields: Any
) -> Recipe:
    """Two epochs of a method around a ResNet-8 at 16 pixels, computed in the one way that is the same everywhere."""
    usual: dict[str, Any] = {
        "name": "resnet8_tiny.photos",
        "model": f"resnet8_{kind.name}",
        "method": small_config(kind, **beside(kind, data) | (choices or {})),
        "promise": Promise("no paper", "none", "drawn images", EPOCHS, "one CPU core", None, "not measured"),
        "size": 16,
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "accumulation": 1,
        "optimizer": OptimizerConfig("sgd", 0.5, weight_decay=1e-4),
        "schedule": ScheduleConfig(per="step"),
        "precision": "fp32",
        "layout": "contiguous",
        "engine": "pillow",
        "seed": 5,
        "workers": 0,
        "monitoring": Monitoring(knn_every=1, k=3),
        "checkpoints": Checkpoints(every_minutes=0),
        "log_every": 2,
        "data": str(data),
        "out": str(out),
    }
    return Recipe(**usual | fields)


def beside(kind: type[MethodConfig], data: Path) -> dict[str, str]:
    """For a method that wants them, a file of pairs or a teacher beside the images."""
    wanted = {field.name for field in dataclasses.fields(kind)}
    found = {}
    if "pairs" in wanted:
        found["pairs"] = str(data.with_suffix(".parquet"))
        mined(open_images(str(data)), found["pairs"])
    if "teacher" in wanted:
        found["teacher"] = str(data.with_suffix(".teacher"))
        if not Path(found["teacher"]).exists():
            leave_teacher(found["teacher"])
    return found


def run(recipe: Recipe, page: bool = False) -> RunFolder:
    """The recipe run to its end, as `run_whole` does, but for what costs as much as training: see `in_brief`."""
    with in_brief(page):
        return run_whole(recipe)


@contextmanager
def in_brief(page: bool = False, compared: bool = False) -> Iterator[None]:
    """Let runs end without maps and a page and without the comparison against other weights, unless asked for."""
    with pytest.MonkeyPatch.context() as patch:
        if not compared:
            patch.setattr(ending, "conclude", lambda *_: None)
        if not page:
            patch.setattr(pretrain_module, "live_page", nullcontext)
            patch.setattr(results_module, "draw_gallery", lambda *_: None)
            patch.setattr(results_module, "draw_maps", lambda *_: None)
        yield


def run_whole(recipe: Recipe) -> RunFolder:
    """The recipe run to its end, as a process of its own would: Accelerate remembers nothing of the run before."""
    forget()
    try:
        return pretrain_module.pretrain(recipe)
    finally:
        forget()


def forget() -> None:
    """Let Accelerate begin anew, but for the processes, which have met already."""
    AcceleratorState._reset_state(reset_partial_state=False)
    if not torch.distributed.is_initialized():
        PartialState._reset_state()


class Killed(Exception):
    """An error that ends a run without a word."""


def killed() -> None:
    raise Killed


def asked_to_stop() -> None:
    signal.raise_signal(signal.SIGTERM)


@contextmanager
def after(step: int, happens: Callable[[], None]) -> Iterator[None]:
    """Something happens once, between a step and what is logged and saved after it."""
    descend = Loop.descend

    def then(loop: Loop, batches: Any) -> None:
        descend(loop, batches)
        if loop.step == step:
            happens()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "descend", then)
        yield


def stop(recipe: Recipe, step: int, happens: Callable[[], None] = asked_to_stop) -> None:
    """The recipe run until it is ended in its step `step`."""
    with after(step, happens), pytest.raises((Killed, SystemExit)):
        run(recipe)


def state(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the newest checkpoint below a run's folder."""
    saved = checkpoint.load_latest(path / "checkpoints")
    assert saved is not None
    return {f"{part}/{name}": tensor for part, named in saved.tensors.items() for name, tensor in named.items()} | {
        f"own/{name}": tensor for name, tensor in saved.own.items()
    }


def sha(tensors: dict[str, torch.Tensor]) -> str:
    """One sha256 over the names and bytes of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def outcome(path: Path) -> dict[str, Any]:
    """The outcome of a run, equal to the last bit for two runs of one recipe, whole or in brief."""
    results = json.loads((path / "results.json").read_text())
    assert results.pop("seconds") > 0
    results = {name: value for name, value in results.items() if name not in ("baselines", "verdict")}
    return {
        "state": sha(state(path)),
        "log": (path / "log.jsonl").read_text(),
        "results": results,
        "backbone": hashlib.sha256((path / "backbone" / "model.safetensors").read_bytes()).hexdigest(),
    }


def elsewhere(recipe: Recipe, out: Path) -> Recipe:
    """The same run in another folder."""
    return dataclasses.replace(recipe, out=str(out))


@dataclass(frozen=True)
class Part:
    """A run, or what is to be done of it in one go."""

    recipe: Recipe
    stop_at: int = 0
    """A step in which the second process, and it alone, is told to stop; 0 for none."""
    go_on: bool = True
    """Start a run again that was stopped."""
    compared: bool = False
    """End it with the comparison against other weights."""
    whole: bool = False
    """End it with all that runs end with, not in brief."""


def as_rank(rank: int, parts: dict[str, Part], dtype: torch.dtype) -> dict[str, dict[str, torch.Tensor]]:
    """The method of each run at its end in this process, one of two or the only one."""
    ended = {}
    with pytest.MonkeyPatch.context() as patch:
        build = pretrain_module.build
        patch.setattr(pretrain_module, "build", lambda *asked, **more: build(*asked, **more).to(dtype))
        looked_at = ending.looked_at
        patch.setattr(ending, "looked_at", lambda network, *more: looked_at(network.to(dtype), *more))
        for kind in (CenterCrop, MultiView):
            patch.setattr(kind, "on_device", typed(kind.on_device, dtype))
        for name, part in parts.items():
            if part.stop_at:
                told = asked_to_stop if rank == world_size() - 1 else lambda: None
                with after(part.stop_at, told), pytest.raises(SystemExit, match="143"):
                    run_here(part.recipe)
            if part.go_on:
                with nullcontext() if part.whole else in_brief(compared=part.compared):
                    ended[name] = run_here(part.recipe)
    return ended


def run_here(recipe: Recipe) -> dict[str, torch.Tensor]:
    """The method's state after a run that does not part the processes at its end."""
    forget()
    begun, save_results, conclude = pretrain_module.start(recipe)
    assert not isinstance(begun, RunFolder)
    loop, log = begun
    with loop.folder, closing(log):
        finish(loop, log, save_results, conclude)
    return {name: tensor.clone() for name, tensor in loop.method.state_dict().items()}


def typed(on_device: Callable[..., Any], dtype: torch.dtype) -> Callable[..., Any]:
    """A transform's last move, with its views as numbers of a type."""

    def move(transform: Any, batch: Any) -> Any:
        content = on_device(transform, batch)
        return [view.to(dtype) for view in content] if isinstance(content, list) else content.to(dtype)

    return move
