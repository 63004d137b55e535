"""Parts of a run's description: optimiser, schedule, measurements, checkpoints, and the promise of a recipe."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal

from ssl_backbones.checks import check, check_at_least
from ssl_backbones.optimizers.lars import Trust
from ssl_backbones.schedules import Per, cosine_decay, linear_warmup, polynomial_decay, step_decay
from ssl_backbones.typed.values import check_types

ClipPer = Literal["parameter", "all"]
LR_AFTER = "LARS's momentum gathers steps with their learning rate; the authors' code multiplies by it afterwards."
"""Told where a recipe follows a code whose LARS is of the other kind."""


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser and its settings; not every one uses them all."""

    kind: Literal["sgd", "lars", "adamw", "adam"] = "sgd"
    """Its kind."""
    lr: float = 0.03
    """Learning rate: per 256 images, or as it is (see lr_rule)."""
    lr_rule: Literal["per 256", "absolute"] = "per 256"
    """Scale the learning rate with the global batch, or take it as it is."""
    momentum: float = 0.9
    """Momentum of SGD and LARS."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Betas of Adam and AdamW."""
    weight_decay: float = 1e-4
    """Weight decay: added to the gradient, or decoupled in AdamW."""
    exclude_norm_and_bias: bool = False
    """Apply neither weight decay nor LARS adaptation to normalisation layers and biases."""
    exclude_head_norm: bool = True
    """If those are excluded, exclude the scale of normalisation layers in heads (outside the backbone) too."""
    norm_and_bias_lr: float | None = None
    """Learning rate of excluded parameters, by the same rule. Default: that of the rest."""
    backbone_lr: float | None = None
    """Learning rate of the backbone, by the same rule. Default: that of the rest."""
    constant_part: str | None = None
    """Part of the method whose learning rate stays at its peak after the warm-up, such as predictor."""
    clip: float | None = None
    """Gradient norm above which gradients are clipped. Default: no clipping."""
    clip_per: ClipPer = "all"
    """Clip the norm of each parameter's gradient, or of all gradients together."""
    trust: Trust = "sum"
    """Denominator of LARS' trust ratio: |g| + wd |w|, or |g + wd w|."""
    trust_coefficient: float = 1e-3
    """Trust coefficient of LARS."""

    def __post_init__(self) -> None:
        check_types(self, "optimizer.")
        check(self.lr > 0 and math.isfinite(self.lr), "optimizer.lr", self.lr, "above 0")
        check(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "at least 0 and below 1")
        check(all(0 <= beta < 1 for beta in self.betas), "optimizer.betas", self.betas, "at least 0 and below 1 each")
        check(0 <= self.weight_decay < math.inf, "optimizer.weight_decay", self.weight_decay, "at least 0")
        for name in ("norm_and_bias_lr", "backbone_lr"):
            rate = getattr(self, name)
            check(rate is None or 0 < rate < math.inf, f"optimizer.{name}", rate, "above 0, or None")
        check(self.clip is None or 0 < self.clip < math.inf, "optimizer.clip", self.clip, "above 0, or None")
        check(self.trust_coefficient > 0, "optimizer.trust_coefficient", self.trust_coefficient, "above 0")

    def effective_lr(self, batch_size: int) -> float:
        """The learning rate at its peak, for a global batch."""
        return self.lr if self.lr_rule == "absolute" else self.lr * batch_size / 256

    def at_lr(self, lr: float) -> OptimizerConfig:
        """The optimiser at another learning rate, with those of its parts, where they have their own, scaled alike."""
        scale = lr / self.lr
        plain = None if self.norm_and_bias_lr is None else self.norm_and_bias_lr * scale
        backbone = None if self.backbone_lr is None else self.backbone_lr * scale
        return replace(self, lr=lr, norm_and_bias_lr=plain, backbone_lr=backbone)


@dataclass(frozen=True)
class ScheduleConfig:
    """The schedule of the learning rate: a factor of its peak."""

    kind: Literal["cosine", "step", "constant", "poly"] = "cosine"
    """Its kind."""
    warmup_epochs: int = 0
    """Epochs of linear warm-up, step by step, before anything else."""
    warmup_steps: int = 0
    """Warm-up in optimiser steps, for a run that counts steps; under cosine, use epochs."""
    start_share: float = 0.0
    """Share of the peak that the warm-up starts at."""
    end_share: float = 0.0
    """Share of the peak that the cosine ends at."""
    per: Per = "epoch"
    """The unit in which the cosine moves."""
    milestones: tuple[int, ...] = ()
    """Epochs at which the step schedule decays."""
    milestone_steps: tuple[int, ...] = ()
    """Milestones in optimiser steps, for a run that counts steps."""
    decay: float = 0.1
    """Factor of the step schedule at each milestone."""
    power: float = 0.9
    """Power of the polynomial schedule, which falls to zero at the end of the run."""

    def __post_init__(self) -> None:
        check_types(self, "schedule.")
        check_at_least(self, "schedule.", warmup_epochs=0, warmup_steps=0)
        for name, unit in (("milestones", "epochs"), ("milestone_steps", "steps")):
            values = getattr(self, name)
            rising = all(0 < a < b for a, b in zip((0.5, *values), values, strict=False))
            check(rising, f"schedule.{name}", values, f"{unit} in rising order, the first at least 1")
        twice = bool(self.milestones and self.milestone_steps)
        check(not twice, "schedule.milestone_steps", self.milestone_steps, "empty where milestones are epochs")
        steps = self.warmup_steps
        alone = steps == 0 or (self.warmup_epochs == 0 and self.kind != "cosine")
        check(alone, "schedule.warmup_steps", steps, "0 under cosine and where the warm-up counts epochs")
        for name in ("start_share", "end_share"):
            share = getattr(self, name)
            check(0 <= share <= 1, f"schedule.{name}", share, "at least 0 and at most 1")
        falls = self.end_share == 0 or self.kind == "cosine"
        check(falls, "schedule.end_share", self.end_share, "0 under any other schedule than cosine")
        check(0 < self.decay <= 1, "schedule.decay", self.decay, "above 0 and at most 1")
        check(0 < self.power < math.inf, "schedule.power", self.power, "above 0")

    def rise(self, step: int, steps_per_epoch: int) -> float:
        """The factor in (0, 1] of the warm-up alone."""
        risen = linear_warmup(step, 1, self.warmup_steps) * linear_warmup(step, steps_per_epoch, self.warmup_epochs)
        return self.start_share + (1 - self.start_share) * risen

    def factor(self, step: int, steps_per_epoch: int, epochs: int, total_steps: int) -> float:
        """The factor in (0, 1] for an optimiser step, counted from 0."""
        if self.kind == "cosine":
            if step < self.warmup_epochs * steps_per_epoch:
                return self.rise(step, steps_per_epoch)
            fallen = cosine_decay(step, steps_per_epoch, epochs, self.warmup_epochs, self.per)
            return self.end_share + (1 - self.end_share) * fallen
        rise = self.rise(step, steps_per_epoch)
        if self.kind == "poly":
            return rise * polynomial_decay(step, total_steps, self.power)
        if self.kind == "step":
            decayed = step_decay(step, steps_per_epoch, self.milestones, self.decay)
            return rise * decayed * step_decay(step, 1, self.milestone_steps, self.decay)
        return rise


@dataclass(frozen=True)
class Monitoring:
    """Measurements in training; they change nothing in the weights."""

    knn_every: int = 10
    """Epochs between two k-NN accuracies where there are labels; 0 measures only before and after."""
    k: int = 20
    """Neighbours that vote."""
    bank: int = 50_000
    """Largest number of images whose features are kept as neighbours."""

    def __post_init__(self) -> None:
        check_types(self, "monitoring.")
        check_at_least(self, "monitoring.", knn_every=0, k=1, bank=1)


@dataclass(frozen=True)
class Checkpoints:
    """The rules for writing the full state; whichever comes first."""

    every_steps: int = 0
    """Optimiser steps between two checkpoints; 0 for no such rule."""
    every_minutes: float = 15.0
    """Minutes between two checkpoints; 0 for no such rule."""
    keep: int = 2
    """The number of last checkpoints that stay."""

    def __post_init__(self) -> None:
        check_types(self, "checkpoints.")
        check_at_least(self, "checkpoints.", every_steps=0, keep=1)
        check(0 <= self.every_minutes < math.inf, "checkpoints.every_minutes", self.every_minutes, "at least 0")


@dataclass(frozen=True)
class Promise:
    """The source of a recipe and its expected result."""

    paper: str
    table: str
    """Table or section of the paper, or where else the settings stand."""
    data: str
    epochs: int
    hardware: str
    hours: float | None
    """Hours on that hardware; None where the paper does not state them."""
    result: str
    """The expected result, and whose it is; accuracy by linear evaluation comes first: "73.8 top-1, linear (paper)"."""
    not_stated: str = ""
    """Settings that the source leaves open, and the choice made here."""

    def __post_init__(self) -> None:
        check_types(self, "promise.")

    @property
    def linear_top1(self) -> float | None:
        """The accuracy by linear evaluation in % that the result begins with; None where it begins otherwise."""
        found = re.match(r"([\d.]+) top-1, linear\b", self.result)
        return float(found[1]) if found else None
