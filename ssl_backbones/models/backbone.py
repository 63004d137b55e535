"""The backbone of a method: a headless timm model, its feature maps and its width."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from ssl_backbones.checks import check
from ssl_backbones.data.statistics import Statistics
from ssl_backbones.refusal import Refusal, reason
from ssl_backbones.views.center_crop import CenterCrop
from ssl_backbones.views.normalise import IMAGENET_MEAN, IMAGENET_STD, for_channels


class LayerError(Refusal, ValueError):
    """A layer that a network does not have, or that has no map to show; the message says which there are."""


def width_of(backbone: nn.Module) -> int:
    """The number C of channels of a backbone's feature maps; ValueError for what is no headless timm model."""
    width = getattr(backbone, "num_features", None)
    if not isinstance(width, int) or not callable(getattr(backbone, "forward_features", None)):
        raise ValueError(
            f"a method trains a timm model, with num_features and forward_features, and a {type(backbone).__name__} is "
            "none: make it with timm.create_model(name, num_classes=0)"
        )
    if getattr(backbone, "num_classes", 0):
        raise ValueError(
            f"a method trains a backbone without head, and this {type(backbone).__name__} has one of "
            f"{backbone.num_classes} classes: make it with num_classes=0"
        )
    return width


def feature_map(backbone: nn.Module, images: Tensor) -> Tensor:
    """The feature map (B, C, h, w) of images (B, 3, H, W); ValueError for what has no such map, as a transformer."""
    features: Tensor = backbone.forward_features(images)  # type: ignore[operator]
    if features.ndim != 4 or features.shape[1] != backbone.num_features:
        raise ValueError(
            f"a method needs feature maps (B, {backbone.num_features}, h, w), and a {type(backbone).__name__} gives "
            f"{tuple(features.shape)}: take a convolutional network, such as a ResNet"
        )
    return features


def pooled(features: Tensor) -> Tensor:
    """The mean over positions, (B, C, h, w) to (B, C)."""
    return features.mean(dim=(2, 3))


@contextmanager
def modes_kept(network: nn.Module) -> Iterator[None]:
    """Context manager: put every part of a network back into the mode, of training or evaluation, that it was in."""
    modes = [(part, part.training) for part in network.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def on_grid(features: Tensor, side: int) -> Tensor:
    """A feature map (B, C, h, w) pooled to side x side positions; as it is where it has no more, or where side is 0.

    Pooling's gradient has no deterministic form on a GPU.
    """
    if not side or max(features.shape[2:]) <= side:
        return features
    return adaptive_avg_pool2d(features, side)


def pooled_views(backbone: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """The pooled features (V * B, C) of V views (B, 3, S, S) of any sizes, all of the first view before the second's.

    Views of one size that follow one another go through the backbone together, and share their batch statistics.
    """
    return torch.cat([pooled(feature_map(backbone, group)) for group in joined_by_size(views)])


def joined_by_size(views: Sequence[Tensor]) -> list[Tensor]:
    """Views (B, 3, S, S) of any sizes, those of one size that follow one another joined to (V * B, 3, S, S)."""
    return [torch.cat(list(group)) for _, group in groupby(views, key=lambda view: view.shape[2:])]


def normalisation(backbone: nn.Module) -> dict[str, Any]:
    """The mean and the deviation of each channel that a backbone expects, as transforms take them."""
    cfg: Any = getattr(backbone, "pretrained_cfg", None) or {}
    return {"mean": tuple(cfg.get("mean") or IMAGENET_MEAN), "std": tuple(cfg.get("std") or IMAGENET_STD)}


class PreparationError(Refusal, ValueError):
    """A backbone whose images are prepared in a way that is not made here."""


def center_crop(backbone: nn.Module, size: int | None = None, channels: int = 3) -> CenterCrop:
    """The middle crop that the backbone's description names, at `size` pixels where that is given.

    PreparationError for one of images of another number of channels, and for a crop or an interpolation that is not
    made here.
    """
    cfg: Any = backbone.pretrained_cfg
    size = size or cfg["input_size"][-1]
    try:
        own, kind = cfg["input_size"][0], "RGB images" if channels == 3 else f"images of {channels} channels"
        way = "" if own == 3 else f", or --in_chans {own} given where the command has it"
        expected = f"that of {kind}, {channels} and two sides{way}"
        check(own == channels, "input_size", list(cfg["input_size"]), expected)
        levels = normalisation(backbone)
        for name, values in levels.items():
            right = len(values) in (1, channels)
            check(right, name, list(values), f"one number, or one for each of {channels} channels")
        return CenterCrop(size, cfg["crop_pct"], cfg["interpolation"], **levels)
    except ValueError as error:
        raise PreparationError(
            f"images cannot be prepared as a {type(backbone).__name__} is described ({str(error).rstrip('.')}): take "
            "another model, or mend its config.json"
        ) from error


def fit_channels(backbone: nn.Module, channels: int, found: Statistics | None) -> None:
    """Have a backbone's description tell the channels of its images, 0 for RGB, at the statistics of their data.

    Where these were not measured, those that it has are repeated for all channels.
    """
    if not (channels or found):
        return
    described: Any = backbone
    cfg, channels = described.pretrained_cfg, channels or 3
    mean, std = (for_channels(tuple(cfg[name]), channels) for name in ("mean", "std"))
    stated = {"mean": found.mean if found else mean, "std": found.std if found else std}
    described.pretrained_cfg = {**cfg, "input_size": (channels, *cfg["input_size"][1:]), **stated}


def freeze_unused(backbone: nn.Module, side: int) -> list[str]:
    """Freeze the norm after the feature map, where a backbone has one, and return the names of its parameters.

    They would get no gradient, which several processes wait for. ValueError for a backbone without feature maps, for
    one that makes none of images of `side` pixels, and for one whose output passes through more weights than those of
    a norm, which would stay as they were drawn.
    """
    trial = shape_of(backbone)
    try:
        channels = ((getattr(backbone, "pretrained_cfg", None) or {}).get("input_size") or (3,))[0]
        maps = feature_map(trial, torch.zeros(1, channels, side, side, device="meta"))
        if not maps.numel():  # which torch 2.6 lets pass
            raise RuntimeError(f"its map would have {maps.shape[2]} x {maps.shape[3]} positions")
        used = leaves(maps)
    except (AssertionError, RuntimeError) as error:
        own = getattr(backbone, "pretrained_cfg", {}).get("input_size", (3, 224, 224))
        feature_map(trial, torch.zeros(1, *own, device="meta"))  # one that has no maps of any image says so
        raise ValueError(
            f"a {type(backbone).__name__} makes no feature map of images of {side} px ({reason(error)}): give it "
            "larger ones with --size"
        ) from error
    unused = [name for name, parameter in trial.named_parameters() if id(parameter) not in used]
    drawn = [name for name in unused if backbone.get_parameter(name).ndim > 1]
    if drawn:
        raise ValueError(
            f"a {type(backbone).__name__}'s output passes through {drawn[0]}, which a method does not train: take a "
            "network whose output is the mean of its feature map, such as a ResNet"
        )
    for name in unused:
        backbone.get_parameter(name).requires_grad_(False)
    return unused


def shape_of(backbone: nn.Module) -> nn.Module:
    """A copy of a backbone without numbers, in evaluation mode, to pass shapes through."""
    empty: dict[int, Any] = {id(buffer): buffer.to("meta") for buffer in backbone.buffers()}
    for weights in backbone.parameters():
        empty[id(weights)] = nn.Parameter(weights.detach().to("meta"), weights.requires_grad)
    copied = copy.deepcopy(backbone, empty).eval()
    for norm in copied.modules():
        if type(norm) is nn.BatchNorm2d and norm.affine:
            norm.forward = partial(scaled, norm)  # type: ignore[method-assign]
    return copied


def scaled(norm: nn.BatchNorm2d, features: Tensor) -> Tensor:
    """Maps (B, C, h, w) times the weights of a norm, plus its biases: a stand-in for it where there are no numbers."""
    return features * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)


def leaves(output: Tensor) -> set[int]:
    """The id of every tensor that would get a gradient from an output of any shape (...)."""
    seen: set[Any] = {None}
    left: list[Any] = [output.grad_fn]
    while left:
        node = left.pop()
        if node not in seen:
            seen.add(node)
            left += [before for before, _ in node.next_functions]
    return {id(node.variable) for node in seen if hasattr(node, "variable")}


def weights_sha256(backbone: nn.Module) -> str:
    """One sha256 over the names and values of all weights and statistics."""
    digest = hashlib.sha256()
    for name, value in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
