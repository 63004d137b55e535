"""A run as one typed value: what is trained, how, on what, and what is promised of it.

`Run` is what the loop reads; `Recipe` is a run that pretrains a backbone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import ssl_backbones.methods  # noqa: F401 - makes every method's configuration known by name
from ssl_backbones.checks import check, check_at_least, check_seed
from ssl_backbones.data.blocks import Keeping
from ssl_backbones.data.cached import check_reencode
from ssl_backbones.data.decode import MAX_PIXELS, DecodePolicy
from ssl_backbones.data.subset import Selection, check_hold_out
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.models.provenance import Provenance
from ssl_backbones.recipes.channels import ImageFields, check_images, with_interpolation
from ssl_backbones.recipes.progressive import Progressive
from ssl_backbones.recipes.settings import Checkpoints, Monitoring, OptimizerConfig, Promise, ScheduleConfig
from ssl_backbones.registry.names import Name
from ssl_backbones.typed.values import check_types, from_plain, to_plain
from ssl_backbones.typed.words import Hidden
from ssl_backbones.views import Engine

FREE = frozenset(
    {"promise", "derived", "monitoring", "checkpoints", "unreadable_share", "log_every", "trackers", "workers"}
    | {"compile", "grad_checkpointing", "data", "validation", "max_pixels", "out", "start"}
    | {"cache", "cache_limit", "blocks", "resident", "measured", "verify"}
)
"""Fields that may change when a run goes on; data are held to their fingerprint instead of their place."""


@dataclass(frozen=True, kw_only=True)
class Run(ABC):
    """All that the loop asks about a run; checked when it is made."""

    or_zero = MappingProxyType[str, str]({})
    """Fields that may be 0 where others are at least 1, and how the refusal of a negative value says so."""
    data: str = ""
    """Folder of images, parquet files or tar shards, here or at an address (s3://...), or a dataset id on the Hub."""
    validation: str = ""
    """Labelled images to test on. Default: the data's own validation split, or a part of the data."""
    out: str = ""
    """The run's folder."""
    size: int = 224
    """Side of a view, in pixels."""
    epochs: int = 200
    """Passes over the images."""
    max_steps: int = 0
    """Optimiser steps after which the run is cut, while schedules stay those of the whole run; 0 for no cut."""
    batch_size: int = 256
    """Images per optimiser step, over all processes and accumulated parts."""
    accumulation: int = 1
    """Parts that a process's share of the batch is scored in, one after another, to save memory. It changes the loss of
    methods that compare the images of a batch, which the run says."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the network; auto is the fastest on this machine: on a CPU a few steps tell."""
    layout: Literal["auto", "contiguous", "channels_last"] = "auto"
    """Memory layout of images and weights; auto is the fastest on this machine: on a CPU a few steps tell."""
    seed: int = 0
    """Random seed for weights, image order and augmentations."""
    compile: bool = False
    """Compile the network (minutes at the start; pays on a GPU)."""
    deterministic: bool = False
    """On a GPU, use only operations that give the same bits each time, so that a resumed run is bit-identical; slower,
    as it times no convolutions and sums in order. A CPU always does."""
    workers: int | None = None
    """Processes that read images, per training process. Default: chosen by the loop."""
    unreadable_share: float = 0.01
    """Share of unreadable images above which the run stops."""
    max_pixels: int = MAX_PIXELS
    """Largest image, in pixels; a larger one is skipped as unreadable."""
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    log_every: int = 10
    """Optimiser steps between two lines in the log."""
    trackers: tuple[str, ...] = ()
    """Experiment trackers that Accelerate knows, such as tensorboard."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("size", "epochs", "batch_size", "accumulation", "log_every", "max_pixels"):
            zero = self.or_zero.get(name, "")
            check(getattr(self, name) >= int(not zero), name, getattr(self, name), f"at least 1{zero}")
        check_at_least(self, max_steps=0)
        share = self.undecided("batch_size") or self.batch_size % self.parts == 0
        check(share, "accumulation", self.accumulation, f"a divisor of the batch size, {self.batch_size}")
        check_seed("seed", self.seed)
        check(self.workers is None or self.workers >= 0, "workers", self.workers, "at least 0, or None")
        check(0 <= self.unreadable_share <= 1, "unreadable_share", self.unreadable_share, "at least 0 and at most 1")
        warmup = self.schedule.warmup_epochs
        ends = not warmup or self.undecided("epochs") or warmup < self.epochs
        way_out = f"below the {self.epochs} epochs of the run (lower it together with --epochs)"
        check(ends, "schedule.warmup_epochs", warmup, way_out)

    def undecided(self, name: str) -> bool:
        """True if a field's value is yet to be chosen; what a person set is held to it then."""
        return False

    @property
    def parts(self) -> int:
        """Parts that a process's share of the batch is scored in, as far as that is known."""
        return max(1, self.accumulation)

    @property
    @abstractmethod
    def title(self) -> str:
        """The title of the run, in a few words."""

    @property
    def same_shapes(self) -> bool:
        """True if the tensors of all steps have the same shapes."""
        return True

    @property
    def sides(self) -> tuple[int, ...]:
        """The side of the views of each epoch, in pixels."""
        return (self.size,) * self.epochs

    @property
    def decoding(self) -> DecodePolicy:
        """The rules by which images are decoded."""
        return DecodePolicy(self.max_pixels)

    @property
    def folder(self) -> Path:
        """The folder that the run writes to."""
        return Path(self.out)

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimiser steps from the first to the last."""
        whole = self.epochs * steps_per_epoch
        return min(self.max_steps or whole, whole)

    def whole_steps(self, steps_per_epoch: int) -> int:
        """Optimiser steps that every schedule follows: those of all epochs, however early `max_steps` cuts the run."""
        return self.epochs * steps_per_epoch

    @property
    def peak_lr(self) -> float:
        """The learning rate that the schedule's factor multiplies."""
        return self.optimizer.effective_lr(self.batch_size)

    def lr_sentence(self) -> str:
        """The rule behind the learning rate, and its result."""
        if self.optimizer.lr_rule == "absolute":
            return f"Learning rate {self.peak_lr:g}, as given, whatever the batch ({self.batch_size} images)."
        return f"Learning rate {self.optimizer.lr:g} per 256 images x {self.batch_size} images = {self.peak_lr:g}."

    def lr(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of an optimiser step, counted from 0."""
        whole = self.whole_steps(steps_per_epoch)
        return self.peak_lr * self.schedule.factor(step, steps_per_epoch, self.epochs, whole)

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON has it."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    def completed(self, plain: dict[str, Any]) -> dict[str, Any]:
        """Complete what `to_dict` wrote by newer fields at their defaults; what does not fit stays."""
        try:
            run: Run = from_plain(type(self), plain)
        except ValueError:
            return plain
        return run.to_dict()


@dataclass(frozen=True, kw_only=True)
class Recipe(ImageFields, Run):
    """A run that pretrains a backbone."""

    or_zero = MappingProxyType({"accumulation": ", or 0 for as few as fit"})
    name: str
    """The name of the run."""
    model: str
    """A registered name, <arch>_<method>."""
    output_stride: Literal[0, 1, 2, 4, 8, 16, 32] = 0
    """Pixels a side for a position of the last feature map; 0 for the network's own, 32 for a ResNet-18. Less makes
    finer maps of the same weights, at more cost, as LEWEL, DenseCL and PixPro want of images below 128 px."""
    method: MethodConfig
    promise: Hidden[Promise]
    init: str = ""
    """Initial weights for the same network: a registered name, a timm name, hf-hub:org/name, the folder of a run, or a
    file that convert reads; random if empty. Images are then prepared as those weights' were."""
    with_state: bool = False
    """Take over heads, target and queue too, from a run's folder, from a repository published with --with_state, or
    from a file of the method's authors that has them; the method must be the same."""
    start: Hidden[Provenance | None] = None
    """The provenance of those weights, once they were opened."""
    derived: Hidden[tuple[str, ...]] = ()
    """Fields, by dotted name, that the rules of own.py set when the run starts, but for those that a person set."""
    accumulation: int = 0
    """Parts that a process's share of the batch is scored in, to save memory; 0 for as few as fit, found at the start
    and recorded. It changes the loss of methods that compare the images of a batch, which the run says."""
    grad_checkpointing: bool = False
    """Recompute the backbone's activations for the gradients: less memory, about a third more time, same numbers."""
    out: str = ""
    """The run's folder. Default: runs/<name>."""
    monitoring: Monitoring = field(default_factory=Monitoring)
    progressive: Progressive = field(default_factory=Progressive)
    labels: Literal["auto", "none"] = "auto"
    """Take labels from class folders or a label column where there are any, or ignore them."""
    classes: str = ""
    """File that lists the classes to train on, one on a line; empty for all. ImageNet-100's is imagenet100.txt of
    github.com/HobbitLong/CMC."""
    hold_out: int = 0
    """Images of each class held out for validation; their names are written to held_out.txt. 0 holds none out."""
    verify: bool = False
    """Check the index kept from earlier starts against every image instead of a few; reads all images."""
    engine: Literal["auto", Engine] = "auto"
    """Library that makes the views: pillow (the reference), opencv (faster on a CPU) or device (on the GPU); they
    differ by a few grey levels. auto is opencv where every process has it and the method allows it, else pillow. A
    resumed run keeps its engine."""
    cache: str = ""
    """Folder that keeps the decoded images, so that each is decoded once for all epochs and runs; empty for none."""
    cache_limit: float = 8.0
    """Largest cache, in GB."""
    blocks: Keeping = field(default_factory=Keeping)
    reencode: int = 0
    """Cache images as JPEG scaled to this shorter side, in pixels, which changes them; 0 keeps them as they are."""
    resident: bool = False
    """Hold the whole cache in the memory of the network's device; needs --engine device, and changes no view."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.undecided("size"):
            self.progressive.check(self.size)
        check(0 <= self.cache_limit < math.inf, "cache_limit", self.cache_limit, "at least 0")
        check_hold_out(self.hold_out, self.validation)
        for given in (each.removeprefix("local-dir:") for each in self.method.given):
            own = Path(given).exists() and Path(given).resolve().is_relative_to(self.folder.resolve())
            way_out = "another network than the one that this run moves, which lies in its folder"
            check(not own, f"a network given to {self.method.name}", given, way_out)
        chosen = self.labels == "auto" or not (self.classes or self.hold_out)
        check(chosen, "labels", self.labels, "auto where classes are listed or images held out")
        check_reencode(self.reencode, self.cache)
        placed = bool(self.cache) and self.engine == "device"
        way_out = "false, or come with a cache (--cache FOLDER) and views made on the device (--engine device)"
        check(not self.resident or placed, "resident", self.resident, way_out)
        check(not self.resident or not self.workers, "workers", self.workers, "0 or None where images are resident")
        check(not self.with_state or bool(self.init), "with_state", self.with_state, "false without --init")
        once = not (self.compile and self.grad_checkpointing)
        check(once, "grad_checkpointing", self.grad_checkpointing, "false where the network is compiled")
        check(self.start is None or bool(self.init), "init", self.init, "named where its start is recorded")
        name, label = Name.parse(self.model), self.method.name
        fits = name.method == label and not name.tag
        check(fits, "model", self.model, f"{name.arch}_{label}, as this recipe's method is {label}")
        check_images(self, self.method, self.engine, self.cache)

    def undecided(self, name: str) -> bool:
        return name in self.derived

    @property
    def title(self) -> str:
        return f"{self.name}: {self.model}"

    @property
    def decoding(self) -> DecodePolicy:
        return DecodePolicy(self.max_pixels, channels=self.in_chans)

    @property
    def selection(self) -> Selection:
        """The part of the images that is taken."""
        return Selection(self.classes, self.hold_out)

    @property
    def folder(self) -> Path:
        return Path(self.out or f"runs/{self.name}")

    @property
    def sides(self) -> tuple[int, ...]:
        return self.progressive.sides(self.size, self.epochs)

    @property
    def smallest_side(self) -> int:
        """Side of the smallest view, in pixels."""
        side = min(self.sides)
        return min([side, *(policy.side(side) for policy in self.method.policies)])

    def begun_with(self, start: Provenance) -> Recipe:
        """The recipe with its start recorded, whose interpolation its views take over."""
        return replace(self, start=start, method=with_interpolation(self.method, start.interpolation))

    def completed(self, plain: dict[str, Any]) -> dict[str, Any]:
        """The same; a run that was begun when there was one engine has that one."""
        return super().completed({"engine": "pillow"} | plain)

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> Recipe:
        """The recipe that `to_dict` wrote; ValueError names what does not fit."""
        recipe: Recipe = from_plain(Recipe, plain)
        return recipe
