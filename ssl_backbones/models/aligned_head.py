"""LEWEL's head: where to look is learned by the head that says what is seen.

Huang et al., Learning Where to Learn in Cross-View Self-Supervised Learning, CVPR 2022. https://arxiv.org/abs/2203.14898
"""

from __future__ import annotations

import math
from abc import ABC
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ssl_backbones.checks import check_positive, check_share
from ssl_backbones.models.heads import MLPHead
from ssl_backbones.models.unit_softmax import at_least_single, unit_softmax
from ssl_backbones.typed.values import check_choices

Alignment = Literal["predicted", "random", "uniform"]
SemanticHead = Literal["separate", "shared"]
LEWEL = (
    "Learning Where to Learn in Cross-View Self-Supervised Learning",
    "Huang et al.",
    2022,
    "https://arxiv.org/abs/2203.14898",
)
"""Title, authors, year and address of its paper."""


class AlignedEmbeddings(NamedTuple):
    """The outputs of LEWEL's head for a feature map."""

    projection: Tensor
    """z: the global embedding (B, c)."""
    aligned: Tensor
    """Y: an embedding for each map (B, n, d)."""
    maps: Tensor
    """S: the alignment maps (B, c, H, W); each is non-negative and sums to one over positions."""


@dataclass(frozen=True)
class AlignedHeadConfig(ABC):  # noqa: B024  # fields alone
    """LEWEL's head, the switches of its ablations (Tables 5 to 7, Fig. 3), and the mixture of its losses."""

    hidden_dim: int = 4096
    """m: the width inside every head."""
    projection_dim: int = 256
    """c: the width of the global embedding, and the number of alignment maps."""
    aligned_dim: int = 256
    """d: the width of the aligned embeddings."""
    groups: int = 4
    """h: blocks of channels with maps of their own; an image has n = c / h aligned embeddings."""
    num_layers: int = 2
    """Linear layers of a projection head; predictors always have two."""
    coupled_head: bool = True
    """Predict the maps and the global embedding by one head."""
    semantic_head: SemanticHead = "separate"
    """Give the aligned vectors a head of their own, or share the global one."""
    alignment: Alignment = "predicted"
    """Source of the maps: the head's own, random ones (a softmax of fresh normal noise), or uniform ones."""
    map_scale: float = 1.0
    """Divides the maps' logits."""
    map_l2_norm: bool = True
    """Normalise each position's logits to unit length over the c maps first."""
    aligned_weight: float = 0.5
    """The aligned loss's share of the whole: 0 trains on the global loss alone, 1 on the aligned one alone."""

    def __post_init__(self) -> None:
        check_positive(hidden_dim=self.hidden_dim, projection_dim=self.projection_dim, aligned_dim=self.aligned_dim)
        check_positive(groups=self.groups, num_layers=self.num_layers, map_scale=self.map_scale)
        check_share("aligned_weight", self.aligned_weight)
        check_choices(self)
        if self.semantic_head == "shared" and self.aligned_dim != self.projection_dim:
            raise ValueError(
                f"a shared semantic head gives aligned vectors the width of the projection: aligned_dim="
                f"{self.aligned_dim} must equal projection_dim={self.projection_dim}, or semantic_head be 'separate'"
            )
        self.check_groups(self.projection_dim, "projection_dim")

    def check_groups(self, width: int, name: str) -> None:
        """Refuse a number of groups that does not divide a width; those offered divide the projection's as well."""
        if width % self.groups:
            common = math.gcd(width, self.projection_dim)
            choices = [groups for groups in range(1, common + 1) if common % groups == 0]
            raise ValueError(
                f"groups={self.groups} must divide {name}={width}; these do: {', '.join(map(str, choices))}"
            )

    @property
    def num_maps(self) -> int:
        """n: how many aligned embeddings an image has."""
        return self.projection_dim // self.groups


class AlignedHead(nn.Module):
    """Feature maps (B, C, H, W) to a global embedding, aligned embeddings and the maps that aligned them."""

    def __init__(self, in_dim: int, config: AlignedHeadConfig) -> None:
        super().__init__()
        config.check_groups(in_dim, "the backbone's width")
        self.config = config
        sizes = config.hidden_dim, config.projection_dim, config.num_layers
        self.projector = MLPHead(in_dim, *sizes)  # g
        own_maps = config.alignment == "predicted" and not config.coupled_head
        self.map_head = MLPHead(in_dim, *sizes) if own_maps else None
        shared = config.semantic_head == "shared"
        self.semantic = None if shared else MLPHead(in_dim, config.hidden_dim, config.aligned_dim, config.num_layers)

    def forward(self, feature_map: Tensor) -> AlignedEmbeddings:
        pixels = feature_map.flatten(2).transpose(1, 2)  # F: (B, P, C), a view of a channels_last map
        mean = pixels.mean(1, keepdim=True)  # (B, 1, C)
        if self.config.coupled_head:  # one call: the mean and the pixels share their batch statistics
            scored = self.projector(torch.cat([mean, pixels], dim=1))  # (B, 1 + P, c)
            projection, scores = scored[:, 0], scored[:, 1:]
        else:
            projection = self.projector(mean)[:, 0]
            shape = (*pixels.shape[:2], self.config.projection_dim)
            scores = pixels.new_empty(shape) if self.map_head is None else self.map_head(pixels)
        maps = self.align(scores)  # S: (B, P, c)
        semantic = self.projector if self.semantic is None else self.semantic  # g_s
        aligned = semantic(aggregate(pixels, maps.to(pixels.dtype), self.config.groups))
        grid = feature_map.shape[2:]
        return AlignedEmbeddings(projection, aligned, maps.transpose(1, 2).reshape(*maps.shape[::2], *grid))

    def align(self, scores: Tensor) -> Tensor:
        """Maps (B, P, c) from scores of the same shape: a softmax over positions, in single precision at least."""
        if self.config.alignment == "predicted" and self.config.map_l2_norm:
            return unit_softmax(scores, self.config.map_scale)
        scores = at_least_single(scores)
        if self.config.alignment == "uniform":
            return torch.full_like(scores, 1 / scores.shape[1])
        if self.config.alignment == "random":
            return torch.randn_like(scores).softmax(1)
        return (scores / self.config.map_scale).softmax(1)


def aggregate(pixels: Tensor, maps: Tensor, groups: int) -> Tensor:
    """Pool pixels (B, P, C) under maps (B, P, c) to n = c / groups vectors (B, n, C). Eq. 2 and 6.

    Channels and maps split into `groups` contiguous blocks; vector k joins, block by block, the block's channels
    pooled under the block's map k.
    """
    blocks = pixels.reshape(*pixels.shape[:2], groups, -1)  # (B, P, h, C / h)
    block_maps = maps.reshape(*maps.shape[:2], groups, -1)  # (B, P, h, n)
    return torch.einsum("bphc,bphn->bnhc", blocks, block_maps).flatten(2)


def mixture(global_loss: Tensor, aligned_loss: Tensor, share: float) -> dict[str, Tensor | float]:
    """Two losses, scalars, mixed to "loss", of which the aligned one has a share; and each without gradient. Eq. 3."""
    return {
        "loss": (1 - share) * global_loss + share * aligned_loss,
        "global_loss": global_loss.detach(),
        "aligned_loss": aligned_loss.detach(),
    }
