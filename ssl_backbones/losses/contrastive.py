"""Losses that tell one's own key from the keys of others."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_backbones.losses.precision import in_single_precision

AlignedNegatives = Literal["other_images_all_maps", "other_images_same_map", "everything"]


@in_single_precision
def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE of queries (B, D) against their own keys (B, D) and the negatives (K, D), mean over B.

    Oord et al., 2018, as in MoCo (He et al., 2020), eq. 1, and LEWEL (Huang et al., 2022), eq. 4. Queries and keys
    may be of any length; negatives are taken as they are: unit vectors, as a queue holds them.
    """
    queries, keys = normalize(queries, dim=-1), normalize(keys, dim=-1)
    positive = (queries * keys).sum(-1, keepdim=True) / temperature  # (B, 1)
    negative = queries @ negatives.T / temperature  # (B, K)
    return (torch.cat([positive, negative], dim=1).logsumexp(1) - positive[:, 0]).mean()


@in_single_precision
def aligned_info_nce(
    queries: Tensor,
    keys: Tensor,
    temperature: float,
    first: int = 0,
    negatives: AlignedNegatives = "other_images_all_maps",
) -> Tensor:
    """InfoNCE of aligned queries (B, n, D) against aligned keys (G, n, D) of the whole batch, mean over B * n.

    Query (i, k) has the positive (first + i, k): the same image under the same map. LEWEL (Huang et al., 2022),
    section 3.3, leaves open which of the other keys are negatives: all maps of the other images, the same map of the
    other images, or everything else.
    """
    (images, maps, _), everyone = queries.shape, len(keys)
    queries, keys = normalize(queries, dim=-1), normalize(keys, dim=-1)
    logits = torch.einsum("ikd,jld->ikjl", queries, keys) / temperature  # (B, n, G, n)
    own_image = torch.arange(everyone, device=keys.device) == first + torch.arange(images, device=keys.device)[:, None]
    own_map = torch.eye(maps, dtype=torch.bool, device=keys.device)
    is_own_image, is_own_map = own_image[:, None, :, None], own_map[None, :, None, :]
    is_positive = is_own_image & is_own_map
    excluded = {
        "other_images_all_maps": is_own_image & ~is_own_map,
        "other_images_same_map": ~is_own_map,
        "everything": torch.zeros_like(is_positive),
    }[negatives]
    positive = logits[is_positive].view(images, maps)
    return (logits.masked_fill(excluded, -math.inf).flatten(2).logsumexp(2) - positive).mean()


def aligned_negative_count(images: int, maps: int, negatives: AlignedNegatives) -> int:
    """How many negatives a query of `aligned_info_nce` meets among the keys of `images` images."""
    if negatives not in get_args(AlignedNegatives):
        raise ValueError(f"negatives must be one of {', '.join(get_args(AlignedNegatives))}, not {negatives!r}")
    return {
        "other_images_all_maps": (images - 1) * maps,
        "other_images_same_map": images - 1,
        "everything": images * maps - 1,
    }[negatives]
