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
def multi_positive_info_nce(
    queries: Tensor, positives: Tensor, negatives: Tensor, temperature: float, excluded: Tensor | None = None
) -> Tensor:
    """InfoNCE of queries (B, D) against each of their positives (B, P, D) and the negatives (K, D), mean over B * P.

    FLAGS, eq. 2: every positive has a denominator of its own, itself and the negatives, so that this is the average of
    P losses of MoCo; in SupCon (Khosla et al., 2020) the positives share one. Queries and positives may be of any
    length; negatives are taken as they are, but for those that `excluded` (B, K) keeps from a query.
    """
    queries, positives = normalize(queries, dim=-1), normalize(positives, dim=-1)
    positive = torch.einsum("bd,bpd->bp", queries, positives) / temperature
    negative = queries @ negatives.T / temperature  # (B, K)
    if excluded is not None:
        negative = negative.masked_fill(excluded, -math.inf)
    all_negatives = negative.logsumexp(1, keepdim=True)  # A_i
    return (torch.logaddexp(positive, all_negatives) - positive).mean()


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


@in_single_precision
def nt_xent(
    first: Tensor, second: Tensor, temperature: float, everyone: Tensor | None = None, position: int = 0
) -> Tensor:
    """NT-Xent of the embeddings (B, D) of two views of B images, mean over the 2B of them.

    SimCLR (Chen et al., 2020), eq. 1: each embedding finds the one of its image's other view among all but itself.
    `everyone` (G, 2, D) holds both views of the whole batch, this part's images from row `position` on; without it, the
    batch is these B images.
    """
    everyone = None if everyone is None else everyone[:, :, None]
    return aligned_nt_xent(first[:, None], second[:, None], temperature, everyone, position)


@in_single_precision
def aligned_nt_xent(
    first: Tensor,
    second: Tensor,
    temperature: float,
    everyone: Tensor | None = None,
    position: int = 0,
    negatives: AlignedNegatives = "other_images_all_maps",
) -> Tensor:
    """NT-Xent of aligned embeddings (B, n, D) of two views, mean over the 2Bn of them; `everyone` is (G, 2, n, D).

    Each finds the one of its image and map in the other view; which of the rest are negatives is chosen as for
    `aligned_info_nce`, from both views. With one map it is `nt_xent`.
    """
    mine = normalize(torch.stack([first, second], 1), dim=-1)  # (B, 2, n, D)
    others = mine if everyone is None else normalize(everyone, dim=-1)  # (G, 2, n, D)
    logits = torch.einsum("ivkd,jwld->ivkjwl", mine, others) / temperature  # (B, 2, n, G, 2, n)
    images, _, maps, _ = mine.shape
    index = torch.arange(len(others), device=mine.device)
    own_image = (index == position + index[:images, None])[:, None, None, :, None, None]
    own_view = torch.eye(2, dtype=torch.bool, device=mine.device)[:, None, None, :, None]
    own_map = torch.eye(maps, dtype=torch.bool, device=mine.device)[:, None, None, :]
    is_itself = own_image & own_view & own_map
    excluded = {
        "other_images_all_maps": is_itself | (own_image & ~own_map),
        "other_images_same_map": is_itself | ~own_map,
        "everything": is_itself,
    }[negatives]
    positive = (mine * mine.flip(1)).sum(-1) / temperature
    return (logits.masked_fill(excluded, -math.inf).flatten(3).logsumexp(3) - positive).mean()


def aligned_negative_count(images: int, maps: int, negatives: AlignedNegatives) -> int:
    """How many negatives a query of `aligned_info_nce` meets among the keys of `images` images."""
    if negatives not in get_args(AlignedNegatives):
        raise ValueError(f"negatives must be one of {', '.join(get_args(AlignedNegatives))}, not {negatives!r}")
    return {
        "other_images_all_maps": (images - 1) * maps,
        "other_images_same_map": images - 1,
        "everything": images * maps - 1,
    }[negatives]
