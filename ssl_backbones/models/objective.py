"""Joint-embedding losses that LEWEL's aligned branch can be laid over, as configuration."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssl_backbones.checks import check_positive
from ssl_backbones.distributed import gather_with_gradient, rank, world_size
from ssl_backbones.losses import (
    AlignedNegatives,
    aligned_negative_count,
    aligned_nt_xent,
    barlow_twins,
    cosine_distance,
    vicreg,
)
from ssl_backbones.models.heads import MLPHead
from ssl_backbones.typed.values import check_choices


@dataclass(frozen=True)
class Objective(ABC):
    """A loss between the embeddings (B, n, D) of two views: n of each image, of which k meets k. Subclasses are final.

    A global embedding is the case n = 1. The batch is that of all processes.
    """

    @property
    def accumulation_is_exact(self) -> bool:
        """True if the loss of a batch is the mean of its parts' losses; False where it compares its images."""
        return False

    @abstractmethod
    def loss(self, first: Tensor, second: Tensor, predictor: nn.Module) -> Tensor:
        """The symmetric loss of the embeddings (B, n, D) of two views; `predictor` is one that this objective made."""

    def predictor(self, dim: int) -> nn.Module:
        """The module that embeddings (..., D) pass before the comparison with the other view: the identity."""
        return nn.Identity()

    def chance(self, images: int, maps: int) -> float | None:
        """The loss of a network that tells nothing apart, with `images` here and `maps` of each; None if undefined."""
        return None


@dataclass(frozen=True)
class NTXentObjective(Objective):
    """SimCLR's. An aligned embedding's negatives are by default all those of other images, in both views."""

    temperature: float = 0.1
    """Divides the cosines."""
    aligned_negatives: AlignedNegatives = "other_images_all_maps"
    """The other aligned embeddings, of both views, that are negatives of one."""

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature)
        check_choices(self)

    def loss(self, first: Tensor, second: Tensor, predictor: nn.Module) -> Tensor:
        everyone = gather_with_gradient(torch.stack([first, second], dim=1))
        position = rank() * len(first)
        return aligned_nt_xent(first, second, self.temperature, everyone, position, self.aligned_negatives)

    def chance(self, images: int, maps: int) -> float:
        return math.log(1 + 2 * aligned_negative_count(world_size() * images, maps, self.aligned_negatives))


@dataclass(frozen=True)
class CosineObjective(Objective):
    """SimSiam's: each embedding predicts the other view's, which gets no gradient there. 1 - cos, in [0, 2]."""

    accumulation_is_exact = True
    predictor_dim: int = 512
    """The narrow layer in the middle of the predictor."""

    def __post_init__(self) -> None:
        check_positive(predictor_dim=self.predictor_dim)

    def predictor(self, dim: int) -> nn.Module:
        """Two layers (..., D) to (..., D) with a narrow one between them."""
        return MLPHead(dim, self.predictor_dim, dim)

    def loss(self, first: Tensor, second: Tensor, predictor: nn.Module) -> Tensor:
        return (cosine_distance(predictor(first), second) + cosine_distance(predictor(second), first)) / 4


@dataclass(frozen=True)
class BarlowTwinsObjective(Objective):
    """Barlow Twins': the columns correlate over all B * n embeddings."""

    off_diagonal: float = 0.005
    """The weight of the correlations between different columns."""

    def __post_init__(self) -> None:
        check_positive(off_diagonal=self.off_diagonal)

    def loss(self, first: Tensor, second: Tensor, predictor: nn.Module) -> Tensor:
        rows1, rows2 = (gather_with_gradient(view.flatten(0, 1)) for view in (first, second))
        return barlow_twins(rows1, rows2, self.off_diagonal)


@dataclass(frozen=True)
class VICRegObjective(Objective):
    """VICReg's: the columns vary over all B * n embeddings."""

    invariance: float = 25.0
    """The weight of the distance between paired embeddings."""
    variance: float = 25.0
    """The weight of columns that vary too little."""
    covariance: float = 1.0
    """The weight of columns that vary together."""

    def __post_init__(self) -> None:
        check_positive(invariance=self.invariance, variance=self.variance, covariance=self.covariance)

    def loss(self, first: Tensor, second: Tensor, predictor: nn.Module) -> Tensor:
        rows1, rows2 = (gather_with_gradient(view.flatten(0, 1)) for view in (first, second))
        return vicreg(rows1, rows2, self.invariance, self.variance, self.covariance)
