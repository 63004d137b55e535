"""Losses that tell one's own key from the keys of others."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_backbones.losses.parts import in_parts, rows_at_once
from ssl_backbones.losses.precision import in_single_precision

AlignedNegatives = Literal["other_images_all_maps", "other_images_same_map", "everything"]


@in_single_precision
def info_nce(
    queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float, excluded: Tensor | None = None
) -> Tensor:
    """InfoNCE of queries (B, D) against their own keys (B, D) and the negatives (K, D), mean over B.

    Oord et al., 2018, as in MoCo (He et al., 2020), eq. 1, and LEWEL (Huang et al., 2022), eq. 4. Queries and keys
    may be of any length; negatives are taken as they are: unit vectors, as a queue holds them, but for those that
    `excluded` (B, K) keeps from a query.
    """
    return multi_positive_info_nce(queries, keys[:, None], negatives, temperature, excluded)


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
    negative = (queries @ negatives.T).div_(temperature)  # (B, K)
    if excluded is not None:
        negative.masked_fill_(excluded, -math.inf)
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
    images, maps, _ = queries.shape
    own = first + torch.arange(images, device=keys.device)
    queries, keys = normalize(queries, dim=-1) / temperature, normalize(keys, dim=-1)
    pairs = keys[:, :1] if negatives == "other_images_same_map" else keys
    at_once = rows_at_once(maps * pairs[..., 0].numel())
    if images <= at_once:
        return _info_nce_of(queries, own, keys, negatives).mean()

    def summed(part: Tensor, place: Tensor) -> Tensor:
        return _info_nce_of(part, place, keys, negatives).sum()

    return torch.stack(in_parts(summed, (queries, own), at_once)).sum() / (images * maps)


def _info_nce_of(queries: Tensor, own: Tensor, keys: Tensor, negatives: AlignedNegatives) -> Tensor:
    """InfoNCE of each of the queries (B, n, D), divided by the temperature: images `own` (B,) of all keys (G, n, D)."""
    images, maps, _ = queries.shape
    positive = (queries * keys[own]).sum(-1)  # (B, n)
    if negatives == "other_images_same_map":
        same_map = torch.einsum("ikd,jkd->ikj", queries, keys)  # (B, n, G)
        return same_map.logsumexp(2) - positive
    logits = (queries.flatten(0, 1) @ keys.flatten(0, 1).T).view(images, maps, -1, maps)  # (B, n, G, n)
    if negatives == "other_images_all_maps":
        other_map = ~torch.eye(maps, dtype=torch.bool, device=keys.device)
        at = torch.arange(images, device=keys.device), slice(None), own  # each image among the keys
        with torch.no_grad():  # these take no gradient anyway, and autograd would copy all logits
            logits[at] = logits[at].masked_fill(other_map, -math.inf)
    return logits.flatten(2).logsumexp(2) - positive


@in_single_precision
def prototype_contrast(
    embeddings: Tensor, prototypes: Tensor, concentrations: Tensor, own: Tensor, drawn: Tensor
) -> Tensor:
    """ProtoNCE of embeddings (B, D) against their own prototypes (B,) of K and others that were drawn, mean over B.

    PCL (Li et al., 2021), eq. 11, for one clustering: each prototype (K, D) has its own temperature, its concentration
    (K,). The others are the r first of those drawn (1 + r,) that are not an embedding's own. Embeddings may be of any
    length, and prototypes are taken as they are.
    """
    embeddings = normalize(embeddings, dim=1)
    positive = (embeddings * prototypes[own]).sum(1) / concentrations[own]
    negative = (embeddings @ prototypes[drawn].T).div_(concentrations[drawn])  # (B, 1 + r)
    itself, last = own[:, None] == drawn, torch.arange(len(drawn), device=drawn.device) == len(drawn) - 1
    left_out = torch.where(itself.any(1, keepdim=True), itself, last)
    all_negatives = negative.masked_fill_(left_out, -math.inf).logsumexp(1)
    return (torch.logaddexp(positive, all_negatives) - positive).mean()


@in_single_precision
def batch_info_nce(queries: Tensor, keys: Tensor, temperature: float, first: int = 0) -> Tensor:
    """InfoNCE of queries (B, D) against the keys (G, D) of the whole batch, mean over B.

    Query i has the positive first + i, and all others for negatives. NNCLR (Dwibedi et al., 2021), eq. 2, with
    neighbours for queries and predictions for keys.
    """
    return aligned_info_nce(queries[:, None], keys[:, None], temperature, first, "other_images_same_map")


@in_single_precision
def supcon(
    embeddings: Tensor,
    labels: Tensor,
    temperature: float,
    everyone: Tensor | None = None,
    labels_of_all: Tensor | None = None,
    position: int = 0,
) -> Tensor:
    """SupCon's L_out of the embeddings (B, V, D) of V views of images with labels (B,), mean over the BV anchors.

    Khosla et al., 2020, eq. 2: among all views but itself, an anchor finds each of its positives, which are those of
    its label; without any it scores 0. Embeddings are taken as they are: unit vectors. `everyone` (G, V, D) and
    `labels_of_all` (G,) are of the whole batch, this part's images from row `position` on; without them, the batch is
    these B images.
    """
    everyone, labels_of_all = (embeddings, labels) if everyone is None else (everyone, labels_of_all)
    assert labels_of_all is not None
    images, views, _ = embeddings.shape
    anchors, contrasts = embeddings.flatten(0, 1), everyone.flatten(0, 1)
    own = position * views + torch.arange(images * views, device=anchors.device)
    itself = own[:, None] == torch.arange(len(contrasts), device=anchors.device)  # (BV, GV)
    alike = (labels[:, None] == labels_of_all).repeat_interleave(views, 0).repeat_interleave(views, 1) & ~itself
    logits = (anchors @ contrasts.T).div_(temperature).masked_fill_(itself, -math.inf)
    surprise = logits.logsumexp(1, keepdim=True) - logits
    return (surprise.masked_fill(~alike, 0).sum(1) / alike.sum(1).clamp(min=1)).mean()


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
    pairs = others[:, :, :1] if negatives == "other_images_same_map" else others
    own = position + torch.arange(len(mine), device=mine.device)
    at_once = rows_at_once(mine[0, ..., 0].numel() * pairs[..., 0].numel())
    if len(mine) <= at_once:
        return _nt_xent_of(mine, own, others, temperature, negatives).mean()

    def summed(part: Tensor, place: Tensor) -> Tensor:
        return _nt_xent_of(part, place, others, temperature, negatives).sum()

    return torch.stack(in_parts(summed, (mine, own), at_once)).sum() / mine[..., 0].numel()


def _nt_xent_of(mine: Tensor, own: Tensor, others: Tensor, temperature: float, negatives: AlignedNegatives) -> Tensor:
    """NT-Xent of each of the unit embeddings (B, 2, n, D), rows `own` (B,) of all (G, 2, n, D): 2Bn numbers."""
    (images, _, maps, _), scaled = mine.shape, mine / temperature
    positive = (scaled * mine.flip(1)).sum(-1)
    own_view, own_map = (torch.eye(size, dtype=torch.bool, device=mine.device) for size in (2, maps))
    if negatives == "other_images_same_map":
        same_map = torch.einsum("ivkd,jwkd->ikvjw", scaled, others)[..., None]  # (B, n, 2, G, 2, 1)
        excluded = own_view[:, :, None]  # (2, 2, 1): of one's own image, itself alone
        logits, positive = same_map, positive.transpose(1, 2)
    else:
        all_maps = scaled.flatten(0, 2) @ others.flatten(0, 2).T
        logits = all_maps.view(images, 2, maps, -1, 2, maps)  # (B, 2, n, G, 2, n)
        is_itself = own_view[:, None, :, None] & own_map[:, None]  # (2, n, 2, n)
        excluded = is_itself | ~own_map[:, None] if negatives == "other_images_all_maps" else is_itself
    at = torch.arange(images, device=mine.device), slice(None), slice(None), own  # each image among all
    with torch.no_grad():
        logits[at] = logits[at].masked_fill(excluded, -math.inf)
    return logits.flatten(3).logsumexp(3) - positive


def aligned_negative_count(images: int, maps: int, negatives: AlignedNegatives) -> int:
    """The number of negatives of a query of `aligned_info_nce` among the keys of `images` images.

    ValueError for an unknown set.
    """
    if negatives not in get_args(AlignedNegatives):
        raise ValueError(f"negatives must be one of {', '.join(get_args(AlignedNegatives))}, not {negatives!r}")
    return {
        "other_images_all_maps": (images - 1) * maps,
        "other_images_same_map": images - 1,
        "everything": images * maps - 1,
    }[negatives]
