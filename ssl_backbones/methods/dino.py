"""DINO: self-distillation with no labels. Caron et al., 2021. https://arxiv.org/abs/2104.14294"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_backbones.checks import check_at_least, check_momentum, check_positive, check_share
from ssl_backbones.distributed import sum_over_processes, world_size
from ssl_backbones.losses import swapped_prediction
from ssl_backbones.losses.precision import widened
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import normalisation, pooled_views, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.ema import EMA
from ssl_backbones.models.held_back import HeldBack
from ssl_backbones.models.prototypes import Prototypes
from ssl_backbones.registry.papers import Paper
from ssl_backbones.schedules import ema_momentum
from ssl_backbones.views import DINO_CROP, DINO_VIEWS, MultiView, Policy


@dataclass(frozen=True)
class DINOConfig(MethodConfig):
    """DINO's choices, for ResNets."""

    name: ClassVar[str] = "dino"
    paper: ClassVar[Paper] = Paper(
        "DINO",
        "Emerging Properties in Self-Supervised Vision Transformers",
        "Caron et al.",
        2021,
        "https://arxiv.org/abs/2104.14294",
    )
    hidden_dim: int = 2048
    """The width inside the head."""
    projection_dim: int = 256
    """The width before the last layer."""
    num_layers: int = 3
    """Linear layers of the head, the last layer aside."""
    outputs: int = 65536
    """K: the outputs of the last layer."""
    student_temperature: float = 0.1
    """tau_s: the student's temperature."""
    teacher_temperature: float = 0.04
    """tau_t: the teacher's temperature after its warm-up."""
    teacher_temperature_start: float = 0.04
    """tau_t at the start of the run."""
    temperature_rise: float = 0.0
    """The share of the run in which tau_t warms up; each step sets it for the next."""
    center_momentum: float = 0.9
    """m: momentum of the running mean of the teacher's outputs."""
    target_momentum: float = 0.996
    """lambda: the teacher's momentum at the start."""
    target_momentum_end: float = 1.0
    """lambda at the end, which it approaches along half a cosine."""
    frozen_steps: int = 2502
    """Optimiser steps in which the last layer is frozen: an epoch of ImageNet in batches of 512."""
    sync_bn: bool = True
    """Take batch statistics over all processes."""
    views: tuple[Policy, Policy] = DINO_VIEWS
    crop: Policy = DINO_CROP
    """The augmentation of the local crops."""
    crops: int = 8
    """Local crops (multi-crop) of each image, which the student alone is shown."""

    def __post_init__(self) -> None:
        check_positive(hidden_dim=self.hidden_dim, projection_dim=self.projection_dim, num_layers=self.num_layers)
        check_positive(outputs=self.outputs, student_temperature=self.student_temperature)
        check_positive(teacher_temperature=self.teacher_temperature)
        check_positive(teacher_temperature_start=self.teacher_temperature_start)
        check_at_least(self, frozen_steps=0, crops=0)
        for name in ("temperature_rise", "center_momentum", "target_momentum_end"):
            check_share(name, getattr(self, name))
        check_momentum("target_momentum", self.target_momentum)

    @property
    def policies(self) -> tuple[Policy, ...]:
        return (*self.views, *[self.crop] * self.crops)

    def temperature_at(self, progress: float) -> float:
        """tau_t at a share of the run."""
        risen = min(1.0, progress / self.temperature_rise) if self.temperature_rise else 1.0
        return self.teacher_temperature_start + risen * (self.teacher_temperature - self.teacher_temperature_start)

    def build(self, backbone: nn.Module) -> DINO:
        return DINO(backbone, self)


class DINO(Method):
    """The student predicts from any crop its EMA teacher's output for the global crops, centred and sharpened."""

    center: Tensor
    """c: (K,)"""
    temperature: Tensor
    """tau_t at this step."""

    def __init__(self, backbone: nn.Module, config: DINOConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DINOConfig()
        self.backbone = backbone
        self.head = dino_head(width_of(backbone), config.hidden_dim, config.projection_dim, config.num_layers)
        self.last = Prototypes(config.outputs, config.projection_dim, config.frozen_steps, weight_norm=True)
        if config.sync_bn:
            synchronise_batch_norm(self)
        self.teacher = EMA(averaged=False, backbone=self.backbone, head=self.head, last=self.last)
        self.register_buffer("center", torch.zeros(config.outputs))
        self.register_buffer("temperature", torch.tensor(config.temperature_at(0.0)))
        self.seen = HeldBack()

    @property
    def published(self) -> nn.Module:
        """The teacher's backbone."""
        published: nn.Module = self.teacher.backbone
        return published

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.policies, size, **normalisation(self.backbone))

    def forward(self, batch: list[Tensor]) -> dict[str, Tensor | float]:
        """Score crops (B, 3, S, S) of each image, the two that the teacher is shown first. Eq. 3."""
        with torch.no_grad():
            teacher = outputs(self.teacher, batch[: len(self.config.views)])
            targets = ((teacher - self.center) / self.temperature).softmax(2)
            entropy = torch.special.entr(targets).sum(2).mean()
        student = outputs(self, batch)
        if self.training:
            self.seen.hold(sum_over_processes(teacher.mean((0, 1)))[None] / world_size())
        loss = swapped_prediction(student, targets, self.config.student_temperature)
        return {"loss": loss, "chance": math.log(self.config.outputs), "teacher_entropy": entropy}

    @torch.no_grad()
    def on_step_end(self, progress: float) -> dict[str, float]:
        if seen := self.seen.take():
            self.center.lerp_(seen[0].mean(0).to(self.center.dtype), 1 - self.config.center_momentum)
        self.last.step()
        momentum = ema_momentum(progress, self.config.target_momentum, self.config.target_momentum_end)
        self.teacher.update(momentum, backbone=self.backbone, head=self.head, last=self.last)
        temperature = self.config.temperature_at(progress)
        self.temperature.fill_(temperature)
        return {"target_momentum": momentum, "teacher_temperature": temperature}


def outputs(network: DINO | EMA, views: list[Tensor]) -> Tensor:
    """g: the outputs (V, B, K) of student or teacher for V views (B, 3, S, S)."""
    embeddings = normalize(widened(network.head(pooled_views(network.backbone, views))), dim=1)
    cosines: Tensor = network.last(embeddings)
    return cosines.view(len(views), -1, cosines.shape[1])


def dino_head(in_dim: int, hidden_dim: int, out_dim: int, num_layers: int) -> nn.Sequential:
    """The head before its last layer, rows (B, C) to (B, D): linear layers with GELU between them, no BatchNorm.

    The paper's deviation of 0.02 is for layers of 2048 inputs; with fewer it would leave embeddings so short that the
    first step turns them all the same way.
    """
    widths = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layer = nn.Linear(before, after)
        nn.init.trunc_normal_(layer.weight, std=0.02 * (2048 / before) ** 0.5)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.GELU()]
    return nn.Sequential(*layers[:-1])
