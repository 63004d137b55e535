"""The rows of the table at equal CPU cost (equal_cost.py): their recipes, and what they cost."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from steps import anew
from timing import in_turn

from ssl_backbones import recipes
from ssl_backbones.data import Batch, open_images
from ssl_backbones.evaluate.model import open_model
from ssl_backbones.files import make_folder, write_json
from ssl_backbones.methods.distilled import DistilledConfig
from ssl_backbones.methods.rob import RoBConfig
from ssl_backbones.recipes.own import put
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import Monitoring
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.loop import Loop
from ssl_backbones.train.pretrain import start

TEACHERS: dict[str, dict[str, Any]] = {
    "lite0": {"teacher_size": 96},
    "dinov2": {"teacher_size": 112, "teacher_layer": "blocks.10", "teacher_output": "class"},
}
"""The layer of each teacher, and a side of images at which its features leave something of the budget to training."""
ROUNDS, STEPS = 5, 6
"""Turns of all rows, and the steps of a turn, by which the epochs are chosen."""
SIDES = {"imagenette": 64, "goods": 96}
"""Sides of the images, in pixels, that a ResNet-18 is trained on."""


@dataclass(frozen=True)
class Row:
    """A row of the table: a recipe, its teacher, and the row whose run it starts from, on the other images or these."""

    label: str
    recipe: str
    teacher: str = ""
    begins_as: str = ""
    begins_here: bool = False
    sets: tuple[str, ...] = ("imagenette", "goods")
    size: int = 32
    """Side of the images, in pixels; 0 for that of `SIDES`."""
    output_stride: Literal[0, 16] = 0
    """Pixels a side for a position of the last feature map; 0 for the network's own."""

    @property
    def slug(self) -> str:
        """The label as a part of a file's name."""
        return re.sub(r"\W+", "_", self.label.lower()).strip("_")

    def start(self, data: str) -> str:
        """The set that the run was on which this one starts from."""
        return data if self.begins_here else other_than(data)


SCRATCH = Row("BYOL", "resnet8_byol.imagenette32_60ep")
ROWS = (
    SCRATCH,
    Row("LEWEL_B", "resnet8_lewel_b.imagenette32_60ep"),
    Row("LEWEL_M", "resnet8_lewel_m.imagenette32_60ep"),
    Row("BYOL, begun as the other set's", SCRATCH.recipe, begins_as=SCRATCH.label),
    Row("Distilled, Lite0", "resnet8_distilled.imagenette32_60ep_lite0", "lite0"),
    Row("Distilled, DINOv2", "resnet8_distilled.imagenette32_60ep_dinov2", "dinov2"),
    Row("RoB by BYOL, Lite0", "resnet8_rob.imagenette32_60ep_byol_lite0", "lite0"),
    Row("RoB by BYOL, DINOv2", "resnet8_rob.imagenette32_60ep_byol_dinov2", "dinov2"),
    Row("RoB by MoCo v2, Lite0", "resnet8_rob.imagenette32_60ep_moco_v2_lite0", "lite0"),
    Row("RoB by LEWEL_B, Lite0", "resnet8_rob.imagenette32_60ep_lewel_b_lite0", "lite0"),
    Row("RoB by LEWEL_M, Lite0", "resnet8_rob.imagenette32_60ep_lewel_m_lite0", "lite0"),
)
DISTILLED18 = Row("Distilled, Lite0, ResNet-18", "resnet18_distilled.imagenette64_20ep_lite0", "lite0", size=0)
LEWEL_B18 = "resnet18_lewel_b.imagenette96_100ep"
DEEP = (
    DISTILLED18,
    Row("BYOL, ResNet-18", "resnet18_byol.imagenette96_100ep", size=0),
    Row("LEWEL_B, ResNet-18", LEWEL_B18, size=0),
    Row("LEWEL_B, begun as distilled, ResNet-18", LEWEL_B18, "", DISTILLED18.label, begins_here=True, size=0),
    Row("Distilled, DINOv2, ResNet-18", "resnet18_distilled.imagenette64_20ep_dinov2", "dinov2", size=0),
    Row("RoB by BYOL, Lite0, ResNet-18", "resnet18_rob.imagenette64_20ep_byol_lite0", "lite0", size=0),
)
"""Rows of a ResNet-18, those begun as others after them: they leave backbones that are worth having."""
LARGE = tuple(
    Row(
        f"{label}, ResNet-18, maps of 4 x 4",
        f"resnet18_{name}.imagenette96_100ep",
        sets=("imagenette",),
        size=64,
        output_stride=16,
    )
    for label, name in (("BYOL", "byol"), ("LEWEL_B", "lewel_b"), ("MoCo v2", "moco_v2"), ("LEWEL_M", "lewel_m"))
)
"""Rows of a ResNet-18 whose feature maps are as large as LEWEL wants them, trained equally long."""
RANDOM = "Random weights"
RANDOM_DEEP, RANDOM_LARGE = (f"{RANDOM}, ResNet-18", f"{RANDOM}, ResNet-18, maps of 4 x 4")
THEMSELVES = {"lite0": "Lite0 itself", "dinov2": "DINOv2 itself"}


@dataclass(frozen=True)
class Bench:
    """The images, the teachers, the budget, and the folder that all is left in."""

    sets: dict[str, str]
    teachers: dict[str, str]
    out: Path
    budget: float
    choices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By a recipe's name, its fields, by dotted names, that have other values than it says."""
    precision: Literal["fp32", "bf16"] = "fp32"

    @property
    def pairs(self) -> Path:
        """The file of mined pairs."""
        return self.out / "pairs.parquet"

    def record(self, label: str, data: str, seed: int) -> Path:
        """The file of a finished run."""
        return self.out / "records" / f"{Row(label, '').slug}.{data}.seed{seed}.json"

    def run(self, row: Row, data: str, seed: int) -> Path:
        """The folder of a run."""
        return self.out / "runs" / f"{row.slug}.{data}.seed{seed}"

    def recipe(self, row: Row, data: str, seed: int, epochs: int) -> Recipe:
        """The row's recipe on one of the sets, for so many epochs, computed in the one way that all rows are."""
        usual = recipes.get(row.recipe)
        for name, value in self.choices.get(row.recipe, {}).items():
            usual = put(usual, name, value)
        begun = str(self.run(Row(row.begins_as, ""), row.start(data), seed)) if row.begins_as else ""
        return replace(
            usual,
            method=self.taught(usual.method, row.teacher, data),
            optimizer=usual.optimizer.at_lr(usual.optimizer.lr / 3) if begun else usual.optimizer,
            schedule=replace(usual.schedule, warmup_epochs=min(epochs - 1, max(1, round(epochs / 20)))),
            monitoring=Monitoring(knn_every=0),
            size=row.size or SIDES[data],
            output_stride=row.output_stride,
            epochs=epochs,
            seed=seed,
            data=self.sets[data],
            out=str(self.run(row, data, seed)),
            cache=str(self.out / "cache"),
            precision=self.precision,
            layout="channels_last",
            engine="auto",
            workers=0,
            init=begun,
        )

    def taught(self, method: Any, teacher: str, data: str) -> Any:
        """The method with its pairs, or its teacher; one that keeps features has them in a folder of its set's own."""
        if hasattr(method, "pairs"):
            return replace(method, pairs=str(self.pairs))
        if not isinstance(method, DistilledConfig | RoBConfig):
            return method
        kept = str(self.out / "kept" / f"{data}-{teacher}") if method.kept else ""
        return replace(method, teacher=self.teachers[teacher], kept=kept, **TEACHERS[teacher])


def other_than(data: str) -> str:
    """The other of the two sets."""
    return "goods" if data == "imagenette" else "imagenette"


class Meter:
    """CPU seconds of a run's steps; at a checkpoint they are written down, so that a stopped run goes on counting."""

    def __init__(self, loop: Loop, file: Path) -> None:
        self.loop, self.file = loop, file
        self.earlier = spent(file).get(str(loop.step), 0.0)
        self.began: float | None = None
        self.whole: float | None = None
        self.steps, self.save = loop.loader.steps, loop.save
        loop.loader.steps, loop.save = self.metered, self.saved  # type: ignore[method-assign]

    @property
    def seconds(self) -> float:
        """Those until now."""
        return self.earlier + (0.0 if self.began is None else time.process_time() - self.began)

    def metered(self, first: int, last: int) -> Iterator[list[Batch]]:
        """Yield what the loop's steps are made of, from the first to the last, while time counts."""
        self.began = time.process_time()
        yield from self.steps(first, last)
        self.whole = self.seconds

    def saved(self) -> None:
        """Let the loop save, and write down what it has cost until there."""
        self.save()
        write_json(self.file, spent(self.file) | {str(self.loop.step): self.whole or self.seconds})


def spent(file: Path) -> dict[str, float]:
    """CPU seconds of a run by the step that was saved; none where nothing was."""
    found: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    return found


class Steps:
    """A few steps of a run that is not finished: batches, `Loop.descend`, nothing saved."""

    def __init__(self, recipe: Recipe, folders: ExitStack) -> None:
        anew()
        self.before = time.process_time()
        begun, *_ = start(recipe)
        assert not isinstance(begun, RunFolder)
        self.loop, log = begun
        folders.enter_context(self.loop.folder)
        folders.enter_context(closing(log))
        self.batches = self.loop.loader.steps(0, ROUNDS * STEPS + STEPS)

    def __call__(self) -> None:
        for _ in range(STEPS):
            self.loop.descend(next(self.batches))


def costs(bench: Bench, rows: tuple[Row, ...], data: str) -> dict[str, dict[str, float]]:
    """CPU seconds of a row's epoch, and of its teacher before the first step, by recipe; measured once in a folder."""
    file = bench.out / f"costs.{data}.json"
    known: dict[str, dict[str, float]] = json.loads(file.read_text()) if file.exists() else {}
    lacking = {row.recipe: row for row in rows if row.recipe not in known and not row.begins_as}
    if not lacking:
        return known
    with tempfile.TemporaryDirectory(prefix="trial-") as place, ExitStack() as folders:
        before, ways = {}, {}
        for name, row in lacking.items():
            before[name] = teaching(bench, row, data)
            trial = replace(bench.recipe(row, data, 0, 1000), out=f"{place}/{row.slug}")
            ways[name] = Steps(trial, folders)
        seconds = in_turn(ways, ROUNDS, time.process_time)
        for name, way in ways.items():
            epoch = float(np.median(seconds[name])) / STEPS * way.loop.loader.steps_per_epoch
            known[name] = {"epoch": epoch, "before": before[name]}
    write_json(file, known)
    return known


def epochs_for(budget: float, cost: Mapping[str, float]) -> int:
    """The epochs that a budget allows, one at least; a teacher that alone takes over half of it is not counted in."""
    left = budget - cost["before"]
    return max(1, int((left if left > budget / 2 else budget) / cost["epoch"]))


def teaching(bench: Bench, row: Row, data: str) -> float:
    """CPU seconds of what a row's teacher does before the first step: features of all images, or of some for means."""
    recipe = bench.recipe(row, data, 0, 1000)
    if not isinstance(recipe.method, DistilledConfig | RoBConfig):
        return 0.0
    file = bench.out / f"teaching.{data}-{row.teacher}{'-kept' if recipe.method.kept else ''}.json"
    if not file.exists():
        if recipe.method.kept:
            shutil.rmtree(recipe.method.kept, ignore_errors=True)  # half made, its cost unknown
            make_folder(Path(recipe.method.kept).parent)
        images = open_images(recipe.data)
        method = recipe.method.build(open_model(recipe.model.partition("_")[0], random=True).network)
        began = time.process_time()
        method.dataset(images, recipe.size, recipe.seed)
        write_json(file, {"seconds": time.process_time() - began})
    return float(json.loads(file.read_text())["seconds"])
