"""Linear, fine-tuned and semi-supervised runs small enough for tests, on images whose class shows in their colour."""

from __future__ import annotations

import dataclasses
import json
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import runs
import torch
from PIL import Image

from ssl_backbones.evaluate.classification.labelled_run import LabelledRun
from ssl_backbones.recipes.settings import Checkpoints, ScheduleConfig

COLOURS = {"blue": (30, 40, 200), "green": (40, 180, 60), "red": (210, 50, 40)}
PER_CLASS = 12


def tinted(path: Path, per_class: int = PER_CLASS, seed: int = 0, names: tuple[str, ...] = tuple(COLOURS)) -> Path:
    """A folder of small images in class folders, each in a colour of its class's kind."""
    stream = np.random.default_rng(seed)
    for number in range(per_class):
        for name in names:
            noise = stream.integers(-25, 26, (20, 22, 3))
            levels = np.clip(np.array(COLOURS.get(name, (128, 128, 128))) + noise, 0, 255).astype(np.uint8)
            (path / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(levels).save(path / name / f"{name}_{number:02}.png")
    return path


def divided(path: Path, train: int = PER_CLASS, val: int = 9) -> Path:
    """A folder with images to learn from and, beside them, others to be asked about."""
    tinted(path / "train", train, seed=1)
    tinted(path / "val", val, seed=2)
    return path / "train"


def small(protocol: ModuleType, preset: str, data: Path, out: Path, **fields: Any) -> Any:
    """A preset shrunk to images of 16 pixels and a random ResNet-8, two epochs of four steps."""
    usual: dict[str, Any] = {
        "model": "resnet8",
        "random": True,
        "size": 16,
        "epochs": 2,
        "batch_size": 9,
        "schedule": ScheduleConfig("constant"),
        "seed": 3,
        "workers": 0,
        "checkpoints": Checkpoints(every_minutes=0),
        "log_every": 2,
        "data": str(data),
        "out": str(out),
    }
    return dataclasses.replace(protocol.PRESETS[preset], **usual | fields)


def run(protocol: ModuleType, options: LabelledRun) -> dict[str, Any]:
    """The results of a run to its end, as a process of its own would make them."""
    runs.forget()
    try:
        results: dict[str, Any] = protocol.run(options)
        return results
    finally:
        runs.forget()


def elsewhere(options: LabelledRun, out: Path) -> Any:
    """The same run in another folder."""
    return dataclasses.replace(options, out=str(out))


def killed_at(step: int, protocol: ModuleType, options: LabelledRun) -> None:
    """A run that ends without a word in a step."""
    with runs.after(step, runs.killed), pytest.raises(runs.Killed):
        run(protocol, options)


def outcome(path: Path) -> dict[str, Any]:
    """The outcome of a run, equal to the last bit for two runs of the same."""
    results = json.loads((path / "results.json").read_text())
    results["settings"].pop("out")
    log = (path / "log.jsonl").read_text()
    with np.load(path / "per_image.npz") as answers:
        named = {name: answers[name].tolist() for name in answers.files}
    return {"state": runs.sha(runs.state(path)), "log": log, "results": results, "answers": named}


def on_a_rank(rank: int, asked: list[tuple[str, LabelledRun]]) -> list[dict[str, float]]:
    """The numbers that runs left, as one of two processes reads them."""
    found = [
        run(import_module(f"ssl_backbones.evaluate.protocols.{protocol}"), options)["numbers"]
        for protocol, options in asked
    ]
    return [{name: number["value"] for name, number in numbers.items()} for numbers in found]


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The state of a run's method at its end."""
    return {
        name.removeprefix("method/"): value for name, value in runs.state(path).items() if name.startswith("method/")
    }


def results_of(path: Path) -> dict[str, Any]:
    """The files of a run's folder."""
    found: dict[str, Any] = json.loads((path / "results.json").read_text())
    return found


class Chance:
    """Bounds that a guess of one of `classes` keeps on `asked` images, three standard deviations wide."""

    def __init__(self, classes: int, asked: int) -> None:
        share = 1 / classes
        reach = 3 * (share * (1 - share) / asked) ** 0.5
        self.low, self.high = share - reach, share + reach
