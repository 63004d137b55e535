"""RoB: replace one branch. The loss of a joint-embedding method, its momentum encoder replaced by a frozen teacher.

Duval et al., A Simple Recipe for Competitive Low-compute Self supervised Vision Models, 2023.
https://arxiv.org/abs/2301.09451
The paper does so with DINO, SwAV and MSN; this project's reading carries it to BYOL, MoCo v2, LEWEL_B and LEWEL_M. Each
view, as the student sees it, is held to the other view as the teacher sees it: predicted from it (BYOL), or found
among the teacher's features of other images (MoCo v2). A predictor brings the student's embeddings to the teacher's
width; the teacher has no head, its features are taken less their mean. In LEWEL's, the student's maps of a view pool
the teacher's feature map of that view too, so that what is compared under map k is what both see there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ssl_backbones.checks import check, check_positive
from ssl_backbones.data import BatchDataset, Images
from ssl_backbones.distributed import gather, rank, world_size
from ssl_backbones.losses import (
    AlignedNegatives,
    aligned_info_nce,
    aligned_negative_count,
    cosine_distance,
    info_nce,
)
from ssl_backbones.methods.method import Method, MethodConfig
from ssl_backbones.models.aligned_head import AlignedEmbeddings, AlignedHead, AlignedHeadConfig, aggregate, mixture
from ssl_backbones.models.backbone import feature_map, normalisation, pooled, width_of
from ssl_backbones.models.batch_norm import synchronise_batch_norm
from ssl_backbones.models.heads import MLPHead
from ssl_backbones.models.queue import Queue, check_queue
from ssl_backbones.models.teacher import Seen, TeacherError
from ssl_backbones.models.teacher_branch import TeacherBranch, TeacherConfig
from ssl_backbones.registry.papers import Paper
from ssl_backbones.views import LEWEL_B_VIEWS, MultiView, Policy

Loss = Literal["byol", "moco_v2", "lewel_b", "lewel_m"]
ALIGNED = ("lewel_b", "lewel_m")
FOUND = ("moco_v2", "lewel_m")


@dataclass(frozen=True)
class RoBConfig(TeacherConfig, AlignedHeadConfig, MethodConfig):
    """RoB's choices: those of its teacher, of LEWEL's head, and these."""

    name: ClassVar[str] = "rob"
    paper: ClassVar[Paper] = Paper(
        "RoB",
        "A Simple Recipe for Competitive Low-compute Self supervised Vision Models",
        "Duval et al.",
        2023,
        "https://arxiv.org/abs/2301.09451",
    )
    loss: Loss = "lewel_b"
    """The method whose loss is kept. LEWEL's losses need the teacher's feature maps, and so every view shown to it."""
    aligned_weight: float = 0.5
    """The aligned loss's share of the whole, in LEWEL's losses."""
    temperature: float = 0.2
    """tau: the temperature of the softmax in MoCo v2's and LEWEL_M's losses."""
    queue_size: int = 65536
    """K: the teacher's features of past images, the negatives in MoCo v2's and LEWEL_M's losses."""
    aligned_negatives: AlignedNegatives = "other_images_all_maps"
    """The other aligned features that are negatives of a query, in LEWEL_M's loss."""
    sync_bn: bool = True
    """Take batch statistics over all processes."""
    views: tuple[Policy, Policy] = LEWEL_B_VIEWS

    def __post_init__(self) -> None:
        TeacherConfig.__post_init__(self)
        AlignedHeadConfig.__post_init__(self)
        check_positive(temperature=self.temperature, queue_size=self.queue_size)
        fits = not (self.kept and self.loss in ALIGNED)
        expected = "byol or moco_v2 where features are kept; or show the teacher every view (--method.kept '')"
        check(fits, "loss", self.loss, expected)

    @property
    def compares_images(self) -> bool:
        return self.loss in FOUND

    def build(self, backbone: nn.Module) -> RoB:
        return RoB(backbone, self)


class RoB(Method):
    """Each view's embeddings are held to the other view's features by a frozen teacher."""

    def __init__(self, backbone: nn.Module, config: RoBConfig | None = None) -> None:
        """Raise TeacherError for a teacher that nothing is known of, or without the maps that LEWEL's losses need."""
        super().__init__()
        self.config = config = config or RoBConfig()
        self.backbone = backbone
        self.aligned, width = config.loss in ALIGNED, width_of(backbone)
        maps = f"the loss of {config.loss} needs: set --method.loss byol or moco_v2" if self.aligned else ""
        self.branch = TeacherBranch(config, self.transform(1), maps)
        self.comparison: Comparison = (Found if config.loss in FOUND else Predicted)(config, self.branch.width)
        self.predictor = MLPHead(config.projection_dim, config.hidden_dim, self.branch.width)  # q
        if self.aligned:
            self.head = AlignedHead(width, config)
            config.check_groups(self.branch.map_width, "the width of the teacher's maps")
            self.aligned_predictor = MLPHead(config.aligned_dim, config.hidden_dim, self.branch.map_width)  # q_s
            self.alignment_maps = self.maps_of
        else:
            self.projector = MLPHead(width, config.hidden_dim, config.projection_dim, config.num_layers)
        if config.sync_bn:
            synchronise_batch_norm(self)

    def transform(self, size: int) -> MultiView:
        return MultiView(self.config.views, size, **normalisation(self.backbone))

    def check_data(self, images: int, batch_size: int) -> None:
        if self.config.loss in FOUND:
            keys = 1 if self.config.kept else len(self.config.views)
            check_queue(self.config.queue_size, images, batch_size, keys, kept_out="")

    def dataset(self, images: Images, size: int, seed: int) -> BatchDataset:
        """Batches of two views, with the teacher's features of images' middle squares where those are kept.

        TeacherError for a teacher that cannot be had, for kept features that are of something else, and for maps of one
        cell where LEWEL's losses need several.
        """
        side = self.branch.side_for(size)
        if self.aligned and self.branch.cells(side) == 1:
            raise TeacherError(
                f"the teacher {self.config.teacher!r} makes a map of one cell of images of {side} px, and the maps of "
                f"{self.config.loss} choose among several: show it larger ones with --method.teacher_size, or take an "
                "earlier layer with --method.teacher_layer"
            )
        return self.branch.batches(images, self.transform(size), seed)

    @property
    def accumulation_is_exact(self) -> bool:
        return self.config.loss != "lewel_m"

    def account(self) -> dict[str, Any]:
        return self.branch.account()

    def forward(self, batch: Any) -> dict[str, Tensor | float]:
        """Score two views [(B, 3, S, S), (B, 3, S, S)] and, where they are kept, the teacher's features (B, D)."""
        views, features = batch if self.config.kept else (batch, None)
        if features is None:
            seen = [self.branch.look(view) for view in views]
            self.comparison.remember(*(each.features for each in seen))
        else:
            seen = [Seen(self.branch.centred(features), None)] * 2
            self.comparison.remember(seen[0].features)
        if self.aligned:
            return self.aligned_losses([self.embed(view) for view in views], seen)
        projections = [self.projector(pooled(feature_map(self.backbone, view))) for view in views]
        return {"loss": self.global_loss(projections, seen), "chance": 2 * self.comparison.chance}

    def global_loss(self, projections: list[Tensor], seen: list[Seen]) -> Tensor:
        """The loss of both views' projections (B, c), each against the teacher's features (B, D) of the other view."""
        crossed = zip(projections, reversed(seen), strict=True)
        return torch.stack([self.comparison(self.predictor(z), other.features) for z, other in crossed]).sum()

    def aligned_losses(self, embeddings: list[AlignedEmbeddings], seen: list[Seen]) -> dict[str, Tensor | float]:
        """The mixture of the global loss and of the aligned one, (B, n, d) against (B, n, E), map k against map k."""
        targets = [self.pooled_alike(mine.maps, its.maps) for mine, its in zip(embeddings, seen, strict=True)]
        crossed = zip(embeddings, reversed(targets), strict=True)
        pairs = [(self.aligned_predictor(mine.aligned), other) for mine, other in crossed]
        global_loss = self.global_loss([mine.projection for mine in embeddings], seen)
        aligned_loss = torch.stack([self.comparison.aligned(*pair) for pair in pairs]).sum()
        share, count = self.config.aligned_weight, world_size() * len(targets[0])
        chance = (1 - share) * self.comparison.chance + share * self.comparison.aligned_chance(count)
        return mixture(global_loss, aligned_loss, share) | {"chance": 2 * chance}

    def pooled_alike(self, maps: Tensor, seen: Tensor | None) -> Tensor:
        """A teacher's map (B, E, H, W) pooled under the student's maps (B, c, h, w) of the same view: (B, n, E)."""
        assert seen is not None
        there = interpolate(maps.detach(), seen.shape[-2:], mode="bilinear", antialias=True).flatten(2)
        there = there / there.sum(2, keepdim=True)
        return aggregate(seen.flatten(2).transpose(1, 2), there.to(seen.dtype).transpose(1, 2), self.config.groups)

    def on_step_end(self, progress: float) -> dict[str, float]:
        self.comparison.commit()
        return {}

    def embed(self, view: Tensor) -> AlignedEmbeddings:
        """Embed a view (B, 3, H, W) by the student, under its own maps."""
        embeddings: AlignedEmbeddings = self.head(feature_map(self.backbone, view))
        return embeddings

    def maps_of(self, images: Tensor) -> Tensor:
        """The alignment maps (B, c, h, w) of normalised images (B, 3, H, W), of LEWEL's losses; each sums to one."""
        return self.embed(images).maps


class Comparison(nn.Module, ABC):
    """The way in which the student's predictions are held to the teacher's features. Subclasses are final."""

    chance: float
    """The global loss of one view for a network that tells nothing apart."""

    @abstractmethod
    def forward(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """The global loss of predictions (B, D) and targets (B, D)."""

    @abstractmethod
    def aligned(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """The aligned loss of predictions (B, n, E) and targets (B, n, E)."""

    @abstractmethod
    def aligned_chance(self, images: int) -> float:
        """The aligned loss of one view for a network that tells nothing apart, in a batch of so many images."""

    def remember(self, *targets: Tensor) -> None:
        """Hold the teacher's features (B, D) of this step for later ones."""

    def commit(self) -> None:
        """Take in what was held, at the end of the step."""


class Predicted(Comparison):
    """BYOL's, eq. 2, and LEWEL_B's, eq. 5: 2 - 2 cos."""

    chance = 2.0

    def __init__(self, config: RoBConfig, width: int) -> None:
        super().__init__()

    def forward(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return cosine_distance(predictions, targets)

    def aligned(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return cosine_distance(predictions, targets)

    def aligned_chance(self, images: int) -> float:
        return self.chance


class Found(Comparison):
    """MoCo's, eq. 1, and LEWEL_M's, eq. 4: InfoNCE, with the teacher's features as keys."""

    def __init__(self, config: RoBConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.queue = Queue(config.queue_size, width)
        self.chance = math.log(1 + config.queue_size)

    def forward(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return info_nce(predictions, targets, self.queue.keys, self.config.temperature)

    def aligned(self, predictions: Tensor, targets: Tensor) -> Tensor:
        first, config = rank() * len(targets), self.config
        return aligned_info_nce(predictions, gather(targets), config.temperature, first, config.aligned_negatives)

    def aligned_chance(self, images: int) -> float:
        return math.log(1 + aligned_negative_count(images, self.config.num_maps, self.config.aligned_negatives))

    def remember(self, *targets: Tensor) -> None:
        for each in targets:
            self.queue.offer(gather(each))

    def commit(self) -> None:
        self.queue.commit()
