"""A backbone evaluated by more training: runs of a task on top of it, by the loop that pretrains, and their results."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import nn

from ssl_backbones.checks import check_at_least
from ssl_backbones.data import Images
from ssl_backbones.evaluate.frames import AnnotationsFrame
from ssl_backbones.evaluate.tuned import is_tuned, save_tuned
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.recipes.recipe import Run
from ssl_backbones.runs.results import Number, results_of, write_results
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.judge import Trained
from ssl_backbones.train.start import fitting
from ssl_backbones.typed.words import Hidden, Positional


@dataclass(frozen=True, kw_only=True)
class Transfer(Run, ABC):
    """A run that trains a task on top of a backbone and tests it. No run is made of this class itself."""

    protocol: Hidden[str] = ""
    """Name of the evaluation."""
    model: Positional[str] = ""
    """A registered name, hf-hub:org/name, or the folder of a run."""
    weights_sha256: Hidden[str] = ""
    """Of the backbone before training, so that a run does not go on with another."""
    task: MethodConfig
    random: bool = False
    """Random weights instead of the model's, as a baseline."""

    @property
    def title(self) -> str:
        return f"{self.protocol} of {self.initial}"

    @property
    def initial(self) -> str:
        """The weights that it begins with, in words."""
        return f"{self.model} from random weights" if self.random else self.model


@dataclass(frozen=True, kw_only=True)
class TaskRun(Transfer, ABC):
    """A transfer whose length is counted in iterations of a batch of their own. No run is made of this class itself."""

    epochs: Hidden[int] = 1
    max_steps: Hidden[int] = 0
    iterations: int = 20_000
    """Optimiser steps, if they are of `iteration_images`; of another batch, as many as show as many images."""
    iteration_images: int = 16
    """The batch that the iterations are of."""
    annotations_frame: AnnotationsFrame = "auto"
    """Of images with an EXIF turn, where no size tells: annotated as they are seen, or as stored; auto asks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, iterations=1, iteration_images=1)

    def whole_steps(self, steps_per_epoch: int) -> int:
        """Those of its iterations, by which its length is given."""
        return self.max_steps

    def step_scaled(self, step: int) -> int:
        """A step of the preset's batch as one of this run's."""
        return max(1, round(step * self.iteration_images / self.batch_size))

    def on(self, images: int) -> Self:
        """The run on so many images: its steps, milestones, warm-up and epochs by the batch that it has."""
        steps = self.step_scaled(self.iterations)
        return replace(
            self,
            max_steps=steps,
            epochs=-(-steps // max(1, images // self.batch_size)),
            schedule=replace(
                self.schedule,
                milestone_steps=tuple(map(self.step_scaled, self.schedule.milestone_steps)),
                warmup_steps=self.step_scaled(self.schedule.warmup_steps) if self.schedule.warmup_steps else 0,
            ),
        )

    def steps_sentence(self, images: int) -> str:
        """The iterations as steps of this run's batch, in words."""
        schedule, seen = self.schedule, self.max_steps * self.batch_size
        said = (
            f"{self.iterations} iterations of {self.iteration_images} images are {self.max_steps} steps of "
            f"{self.batch_size}: {seen} images, {seen / images:.2f} epochs of {images}"
        )
        decays = ", ".join(map(str, schedule.milestone_steps))
        return f"{said}; warm-up of {schedule.warmup_steps} steps{f', decay at {decays}' if decays else ''}"


@dataclass(frozen=True)
class Learnt:
    """A transfer at its last step, as its results tell of it."""

    images: Images
    """Those that were trained on."""
    folder: RunFolder
    steps: int
    device: torch.device
    precision: str
    unreadable: list[str]
    """Keys of the images that could not be read."""
    backbone: nn.Module | None = None
    """The backbone, where it was trained too."""

    @classmethod
    def by(cls, trained: Trained) -> Learnt:
        """A training of the loop's."""
        precision, unreadable = trained.compute.precision, trained.unreadable
        backbone = trained.method.backbone if is_tuned(trained.method.backbone) else None
        return cls(trained.images, trained.folder, trained.steps, trained.device, precision, unreadable, backbone)

    def save(
        self,
        run: Transfer,
        *,
        validation: Images,
        numbers: Mapping[str, Number],
        more: Mapping[str, Any],
        source: str = "",
    ) -> None:
        """Write the backbone, if it was trained, and results.json: the numbers, the run, and what more is told.

        `source` is that of the validation images where the run does not name it.
        """
        told = {"random_weights": run.random, "steps": self.steps, "unreadable": self.unreadable, **more}
        if self.backbone is not None:
            training = f"{run.protocol}, {self.steps} steps of {run.batch_size} of {len(self.images)} images"
            told["backbone"] = save_tuned(
                self.backbone, self.folder, model=run.model, random=run.random, size=run.size, training=training
            )
        results = results_of(
            protocol=run.protocol,
            model=run.model,
            weights_sha256=run.weights_sha256,
            data=self.images,
            validation=validation,
            sources=(run.data, source or run.validation or run.data),
            numbers=numbers,
            settings=run.to_dict(),
            seed=run.seed,
            device=self.device,
            precision=self.precision,
            more=told,
        )
        write_results(self.folder.path, results)


@contextmanager
def building(run: Transfer) -> Iterator[None]:
    """Context manager for building the task: its head is alike whatever the backbone drew; ValueError to UnfitError."""
    torch.manual_seed(run.seed)
    with fitting():
        yield
