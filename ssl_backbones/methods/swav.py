"""SwAV: swapping assignments between views. Caron et al., 2020. https://arxiv.org/abs/2006.09882"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ssl_backbones.checks import check, check_at_least, check_positive, check_share
from ssl_backbones.distributed import gather, own_rows, world_size
from ssl_backbones.losses import sinkhorn, swapped_prediction
from ssl_backbones.losses.precision import widened
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.backbone import normalisation, pooled_views, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.prototypes import Prototypes
from ssl_backbones.models.queue import Queue
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import SWAV_CROP, SWAV_VIEWS, MultiView, Policy


@dataclass(frozen=True)
class SwAVConfig(MethodConfig):
    """SwAV's choices."""

    name: ClassVar[str] = "swav"
    paper: ClassVar[Paper] = Paper(
        "SwAV",
        "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments",
        "Caron et al.",
        2020,
        "https://arxiv.org/abs/2006.09882",
    )
    hidden_dim: int = 2048
    """The width inside the head."""
    projection_dim: int = 128
    """The width of the embeddings that are assigned."""
    prototypes: int = 3000
    """K: directions that embeddings are assigned to."""
    temperature: float = 0.1
    """tau: the temperature of the predictions."""
    epsilon: float = 0.05
    """epsilon: the temperature of Sinkhorn's assignments; smaller is harder."""
    iterations: int = 3
    """Iterations of Sinkhorn's algorithm."""
    frozen_steps: int = 313
    """Optimiser steps in which the prototypes are frozen: an epoch of the paper's."""
    queue_size: int = 0
    """Embeddings of past batches, over all processes, that are assigned beside a small batch; 0 for none."""
    queue_after: float = 0.0
    """The share of the run before which the queue is not used, nor is it until it is full; the step that reaches the
    share is the last without it."""
    sync_bn: bool = True
    """Take batch statistics over all processes."""
    views: tuple[Policy, Policy] = SWAV_VIEWS
    crop: Policy = SWAV_CROP
    """The augmentation of the local crops."""
    crops: int = 6
    """Local crops (multi-crop) of each image, which predict the assignments of the two views and are not assigned."""

    def __post_init__(self) -> None:
        check_positive(hidden_dim=self.hidden_dim, projection_dim=self.projection_dim, iterations=self.iterations)
        check_positive(temperature=self.temperature, epsilon=self.epsilon)
        check_at_least(self, frozen_steps=0, queue_size=0, crops=0)
        check_share("queue_after", self.queue_after)
        shown = len(self.policies)
        check(self.prototypes >= shown, "prototypes", self.prototypes, f"at least the {shown} crops of an image")

    @property
    def policies(self) -> tuple[Policy, ...]:
        return (*self.views, *[self.crop] * self.crops)

    def build(self, backbone: nn.Module) -> SwAV:
        return SwAV(backbone, self)


class SwAV(Method):
    """Every crop of an image predicts which prototypes its other two views are assigned to, evenly over the batch."""

    accumulation_is_exact = False
    queue_in_use: Tensor
    """1 from the step after `queue_after` on."""

    def __init__(self, backbone: nn.Module, config: SwAVConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SwAVConfig()
        self.backbone = backbone
        self.head = nn.Sequential(
            nn.Linear(width_of(backbone), config.hidden_dim),
            nn.BatchNorm1d(config.hidden_dim),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden_dim, config.projection_dim),
        )
        self.prototypes = Prototypes(config.prototypes, config.projection_dim, config.frozen_steps)
        size, dim = config.queue_size, config.projection_dim
        self.queues = nn.ModuleList(Queue(size, dim, numbered=True) for _ in config.views if size)
        self.register_buffer("queue_in_use", torch.tensor(float(config.queue_after == 0)))
        if config.sync_bn:
            synchronise_batch_norm(self)

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.policies, size, **normalisation(self.backbone))

    def check_data(self, images: int, batch_size: int) -> None:
        size = self.config.queue_size
        expected = f"a multiple of the batch of {batch_size} images, or 0 for none"
        check(size % batch_size == 0, "queue_size", size, expected)

    def forward(self, batch: list[Tensor]) -> dict[str, Tensor | float]:
        """Score crops (B, 3, S, S) of each image, the two that are assigned first."""
        z = normalize(widened(self.head(pooled_views(self.backbone, batch))), dim=1)
        z = z.view(len(batch), -1, z.shape[1])  # (V, B, D)
        scores = self.prototypes(z)
        assignments = torch.stack([self.assign(view, z[view], scores[view]) for view in range(len(self.config.views))])
        loss = swapped_prediction(scores, assignments, self.config.temperature)
        return {"loss": loss, "chance": math.log(self.config.prototypes)}

    @torch.no_grad()
    def assign(self, view: int, z: Tensor, scores: Tensor) -> Tensor:
        """The assignments (B, K) of a view's embeddings (B, D) with these scores, beside those of its queue."""
        counted = None
        if self.queues:
            queue: Queue = self.queues[view]  # type: ignore[assignment]
            share = len(queue) // world_size()
            past = own_rows(queue.keys, share)
            assert queue.numbers is not None
            in_use = self.queue_in_use * (queue.numbers >= 0).all()
            counted = torch.cat([in_use.expand(share), torch.ones_like(scores[:, 0])])
            scores = torch.cat([self.prototypes(past), scores])
            queue.offer(gather(z), torch.zeros(world_size() * len(z), dtype=torch.long, device=z.device))
        q = sinkhorn(scores, self.config.epsilon, self.config.iterations, counted, gather)
        return q[-len(z) :]

    def on_step_end(self, progress: float) -> dict[str, float]:
        self.prototypes.step()
        for queue in self.queues:
            queue.commit()  # type: ignore[operator]
        self.queue_in_use.fill_(float(progress >= self.config.queue_after))
        return {}
