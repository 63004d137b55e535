"""A backbone evaluated by more training: runs of a task on top of it, by the loop that pretrains, and their results."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import nn

from ssl_backbones.catalogue.lookup import architecture_of
from ssl_backbones.checks import check, check_at_least
from ssl_backbones.data import Images
from ssl_backbones.distributed import say
from ssl_backbones.evaluate.frames import AnnotationsFrame
from ssl_backbones.evaluate.learned import learned_from
from ssl_backbones.evaluate.model import EvaluatedModel, open_model
from ssl_backbones.evaluate.tuned_backbone import is_tuned, save_tuned
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.models.provenance import Provenance, provenance_of
from ssl_backbones.models.records_behind import shown
from ssl_backbones.recipes.recipe import FREE, Run
from ssl_backbones.runs.results import LEARNED, LEARNED_SAYS, Number, results_of, write_results
from ssl_backbones.runs.run_folder import RunFolder, differences
from ssl_backbones.train.judge import Trained
from ssl_backbones.train.prepare import fitting
from ssl_backbones.typed.values import to_plain
from ssl_backbones.typed.words import Hidden, Positional

SEARCH = frozenset({"learning_rates", "choose_on", "choice_share"})
"""Fields of the search of the learning rate."""
RATES = frozenset({"optimizer.lr", "optimizer.backbone_lr", "optimizer.norm_and_bias_lr"})
"""Those of the optimiser that are learning rates."""
IMPLIED = (
    FREE
    | SEARCH
    | {"model", "init", "random", "seed", "classes", "deterministic"}
    | {"annotations_frame", "mask_column", "column"}
)
"""Fields that every use of a protocol fills in, whose outcome stands in others, or that make a run repeatable."""


@dataclass(frozen=True, kw_only=True)
class Transfer(Run, ABC):
    """A run that trains a task on top of a backbone and tests it. No run is made of this class itself."""

    protocol: Hidden[str] = ""
    """Name of the evaluation."""
    model: Positional[str] = ""
    """A registered name, a timm name, hf-hub:org/name, or the folder of a run."""
    weights_sha256: Hidden[str] = ""
    """Digest of the backbone before training; a run that is resumed with another one is refused."""
    task: MethodConfig
    random: bool = False
    """Random weights instead of the model's, as a baseline."""
    init: str = ""
    """Weights in place of the model's, which then names the network alone: all that pretrain --init takes."""
    start: Hidden[Provenance | None] = None
    """The provenance of the weights that training begins with; None for random ones."""
    learning_rates: tuple[float, ...] = ()
    """Learning rates to try in place of optimizer.lr, by the same rule, with rates of parts scaled alike: all are told,
    and the results are those of the best. Empty for optimizer.lr alone."""
    choose_on: Literal["train", "validation"] = "train"
    """The images that the best rate is chosen on: a part of the training images, kept from training with each rate, or
    the validation images, whose results it then flatters."""
    lr_stated: Hidden[bool] = True
    """False where the protocol's source searched the learning rate and does not state it: then none alters it."""
    choice_share: float = 0.1
    """The part of the training images that is kept for the choice; with the best rate all are trained on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(not (self.random and self.init), "init", self.init, "left out where weights are --random")
        rates = self.learning_rates
        fit = all(0 < rate < math.inf for rate in rates) and len(set(rates)) == len(rates) != 1
        check(fit, "learning_rates", rates, "two or more, above 0 and each named once, or empty for optimizer.lr alone")
        check(bool(rates) or self.choose_on == "train", "choose_on", self.choose_on, "train without learning_rates")
        check(0 < self.choice_share < 1, "choice_share", self.choice_share, "above 0 and below 1")

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON has it, but for what is said of the source, and of a search where there is none."""
        left_out = {"lr_stated"} if self.learning_rates else {"lr_stated", *SEARCH}
        left_out |= set() if self.init else {"init"}
        return {name: value for name, value in super().to_dict().items() if name not in left_out}

    @property
    def title(self) -> str:
        return f"{self.protocol} of {self.initial}"

    @property
    def initial(self) -> str:
        """The weights that it begins with, in words."""
        if self.init:
            return f"{self.model} from {self.start.shown if self.start else shown(self.init)}"
        return f"{self.model} from random weights" if self.random else self.model

    def opened(self, device: torch.device, size: int = 0) -> EvaluatedModel:
        """The model with the weights that the run begins with, which it tells where they are given.

        Images are prepared at `size`, 0 for the model's own. Raises what `open_model` raises.
        """
        given: Any = {"random": self.random, "seed": self.seed, "init": self.init}
        model = open_model(self.model, device, size=size or None, **given)
        if model.start is not None:
            say(model.start.in_words())
        return model

    def begun_with(self, model: EvaluatedModel) -> Self:
        """The run with the digest and the provenance of the weights that it begins with."""
        given = model.start.provenance if model.start else None
        start = None if self.random else given or provenance_of(model.name, model.network)
        return replace(self, weights_sha256=model.weights_sha256, start=start)


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
    """Frame in which images with an EXIF rotation were annotated: as seen or as stored; auto goes by their sizes."""

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

    def in_words(self, run: Transfer) -> str:
        """The training in a phrase."""
        return f"{run.protocol}, {self.steps} steps of {run.batch_size} of {len(self.images)} images"

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
        told["architecture"] = architecture_of(run.model)
        if self.backbone is not None:
            begun: Any = {"model": run.model, "init": run.init, "random": run.random}
            training = self.in_words(run)
            told["backbone"] = save_tuned(self.backbone, self.folder, **begun, size=run.size, training=training)
        if run.start is not None:
            told["start"] = to_plain(run.start)
        if not run.random and learned_from(run.init or run.model, validation):
            say(LEARNED_SAYS)
            told[LEARNED] = True
        results = results_of(
            protocol=run.protocol,
            model=run.model,
            weights_sha256=run.weights_sha256,
            data=self.images,
            validation=validation,
            sources=(run.data, source or run.validation or run.data),
            numbers=numbers,
            settings={name: value for name, value in run.to_dict().items() if name != "start"},
            seed=run.seed,
            device=self.device,
            precision=self.precision,
            more=told,
        )
        write_results(self.folder.path, results)


def altered(run: Transfer, presets: Mapping[str, Transfer], part: bool = False) -> dict[str, list[Any]]:
    """The fields in which a run differs from the preset it is named after: that one's value, and the run's.

    `part` is true of a run on a part of the training images.
    """
    preset = next(preset for preset in presets.values() if preset.protocol == run.protocol)
    free = IMPLIED if run.lr_stated else IMPLIED | RATES
    changed = {
        name: [old, new]
        for name, (old, new) in differences(preset.to_dict(), run.to_dict()).items()
        if name not in free and name.partition(".")[0] not in free
    }
    return changed | ({"data": ["all", "a part, for the choice of the learning rate"]} if part else {})


@contextmanager
def building(run: Transfer) -> Iterator[None]:
    """Context manager for building the task: its head is alike whatever the backbone drew; ValueError to UnfitError."""
    torch.manual_seed(run.seed)
    with fitting():
        yield
