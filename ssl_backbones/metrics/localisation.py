"""Metrics of localisation: maps against objects, and against the network's own answers.

Pointing game: Zhang et al., 2018. https://arxiv.org/abs/1608.00507
Energy inside: Wang et al., Score-CAM, 2020. https://arxiv.org/abs/1910.01279
Deletion and insertion: Petsiuk et al., RISE, 2018. https://arxiv.org/abs/1806.07421
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def pointing_game(maps: Tensor, masks: Tensor, tolerance: float = 15) -> Tensor:
    """Hits (B,) of the highest place of maps (B, H, W): at most `tolerance` pixels from objects (B, H, W) bool.

    Of several equal peaks, the share that hits: a constant map scores what a blind guess does. NaN without an object.
    """
    check(maps, masks)
    near = grown(masks, tolerance)
    peaks = maps == maps.amax((1, 2), keepdim=True)
    hits = (peaks & near).sum((1, 2)).double() / peaks.sum((1, 2))
    return torch.where(masks.any(2).any(1), hits, torch.nan)


@torch.no_grad()
def energy_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """The share (B,) of non-negative maps (B, H, W) that lies on objects (B, H, W) bool; NaN without an object.

    A map of zeros says nothing, as a constant one does, and scores the objects' share of the image.
    ValueError for maps below zero.
    """
    check(maps, masks)
    if bool((maps < 0).any()):
        raise ValueError(f"maps go down to {maps.min().item():.3g}; give shares of attention, none below 0.")
    total = maps.sum((1, 2), keepdim=True, dtype=torch.float64)
    shares = torch.where(total > 0, maps.double() / total, 1 / maps[0].numel())
    inside = (shares * masks).sum((1, 2))
    return torch.where(masks.any(2).any(1), inside, torch.nan)


@torch.no_grad()
def deletion_auc(
    score: Callable[[Tensor], Tensor],
    images: Tensor,
    maps: Tensor,
    *,
    steps: int = 10,
    fill: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """The mean (B,) of the scores while images (B, 3, H, W) lose their pixels, the highest of maps (B, H, W) first.

    Lost pixels become `fill`, 0 for the mean colour of normalised images. Lower is better: the score falls at once.
    `score` gives (B,). Pixels that a map calls equal go in an order drawn from the seed.
    """
    return curve(score, images, torch.full_like(images, fill), maps, steps, seed)


@torch.no_grad()
def insertion_auc(
    score: Callable[[Tensor], Tensor],
    images: Tensor,
    maps: Tensor,
    *,
    steps: int = 10,
    sigma: float = 5.0,
    seed: int = 0,
) -> Tensor:
    """The mean (B,) of the scores while blurred images get their pixels back, the highest of maps (B, H, W) first.

    The blur is a Gaussian of `sigma` pixels. Higher is better: the score rises at once.
    """
    return curve(score, blurred(images, sigma), images, maps, steps, seed)


def curve(score: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, maps: Tensor, steps: int, seed: int) -> Tensor:
    """The area (B,) under the scores from one version of the images to another, by trapezoids over steps + 1 points."""
    if maps.shape != (len(start), *start.shape[2:]) or steps < 1:
        raise ValueError(
            f"maps are {tuple(maps.shape)} for images {tuple(start.shape)}, steps {steps}; give (B, H, W), 1 or more."
        )
    ranks = order(maps, seed).argsort(1).view_as(maps)
    scores = []
    for step in range(steps + 1):
        moved = ranks < round(step / steps * maps[0].numel())
        scores.append(score(torch.where(moved[:, None], end, start)).double())
    return torch.trapezoid(torch.stack(scores), dx=1 / steps, dim=0)


def order(maps: Tensor, seed: int) -> Tensor:
    """The pixels (B, H * W) of maps from the highest to the lowest; equal ones in an order that the seed draws."""
    values = maps.flatten(1)
    drawn = torch.randperm(values.shape[1], generator=torch.Generator().manual_seed(seed)).to(maps.device)
    return drawn[values[:, drawn].argsort(dim=1, descending=True, stable=True)]


def grown(masks: Tensor, tolerance: float) -> Tensor:
    """The pixels (B, H, W) at most `tolerance` pixels from one of the masks."""
    if not tolerance >= 0:
        raise ValueError(f"tolerance is {tolerance}; give pixels, 0 or more.")
    reach = int(tolerance)
    steps = torch.arange(-reach, reach + 1, device=masks.device)
    disc = (steps[:, None] ** 2 + steps**2 <= tolerance**2).to(torch.float32)[None, None]
    return F.conv2d(masks[:, None].float(), disc, padding=reach)[:, 0] > 0.5


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Images (B, C, H, W) under a Gaussian of `sigma` pixels, their edges held on beyond the border."""
    reach = max(1, round(3 * sigma))
    weights = torch.exp(
        -(torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype) ** 2) / (2 * sigma**2)
    )
    weights = (weights / weights.sum()).expand(images.shape[1], 1, 1, -1)
    wide = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(wide, weights, groups=len(weights)), weights.mT, groups=len(weights))


def centre_prior(height: int, width: int, spread: float = 0.25) -> Tensor:
    """A map (H, W) in [0, 1] that knows no image: a Gaussian about the centre, its spread a share of the sides.

    What people photograph stands in the middle; a map that is no better than this one shows nothing.
    """
    y, x = (torch.linspace(-0.5, 0.5, side + 1)[:-1] + 0.5 / side for side in (height, width))
    return torch.exp(-(y[:, None] ** 2 + x**2) / (2 * spread**2))


def check(maps: Tensor, masks: Tensor) -> None:
    """Refuse maps and objects that do not belong together."""
    if maps.ndim != 3 or maps.shape != masks.shape or masks.dtype != torch.bool or not maps.numel():
        raise ValueError(
            f"maps are {tuple(maps.shape)} and masks {masks.dtype} {tuple(masks.shape)}; give (B, H, W), masks in bool."
        )
    if not maps.isfinite().all():
        raise ValueError("maps hold NaN or infinity, where finite numbers are needed.")
