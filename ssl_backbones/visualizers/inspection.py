"""A network looked at from outside: a pass in evaluation mode, one layer watched, and nothing changed afterwards."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ssl_backbones.methods.method import Method
from ssl_backbones.models.backbone import LayerError, modes_kept

FINE = 7
"""Places along a map's shorter side, from which on it can show where something is."""


class CoarseMapWarning(UserWarning):
    """A map of so few places that most of what is drawn of it lies between them."""


@dataclass(frozen=True)
class Layer:
    """A part of a network whose output is a map (B, C, h, w)."""

    name: str
    module: nn.Module
    channels: int | None
    """C, where the network says it."""
    others: str
    """The names of the network's maps, for a sentence."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside what DistributedDataParallel, DataParallel and torch.compile put around it."""
    inner: Any = model.module if isinstance(model, DistributedDataParallel | DataParallel) else model
    inner = getattr(inner, "_orig_mod", inner)
    return model if inner is model else unwrapped(inner)


def network_of(model: nn.Module) -> nn.Module:
    """The network that looks at images: a method's backbone, or else the model itself."""
    return unwrapped(model.backbone) if isinstance(model, Method) else model


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, uncompiled and with gradients to be had, whatever surrounds it.

    The mode of every part and the random streams are put back.
    """
    gpus = sorted({weights.get_device() for weights in model.parameters() if weights.is_cuda})
    # What is compiled ignores hooks that come later; without dynamo nothing is, and it takes seconds to import.
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(gpus), eager, modes_kept(model):
        model.eval()
        yield


def find_layer(network: nn.Module, layer: str | nn.Module | None) -> Layer:
    """The layer of that name, or that very part; by default the last that timm's `feature_info` lists."""
    infos = {info["module"]: info["num_chs"] for info in getattr(network, "feature_info", [])}
    kind, others = type(network).__name__, ", ".join(infos)
    if isinstance(layer, nn.Module):
        return Layer(f"the {type(layer).__name__} given", layer, None, others)
    name = next(reversed(infos), None) if layer is None else layer
    if name is None:
        raise LayerError(f"a {kind} does not list its maps as timm's networks do: name a convolutional layer of it")
    try:
        return Layer(f"layer {name!r}", network.get_submodule(name), infos.get(name), others)
    except AttributeError:
        offer = f"choose one of {others}" if others else "`named_modules` lists its layers"
        raise LayerError(f"a {kind} has no layer {name!r}: {offer}") from None


@contextmanager
def watched(layer: Layer) -> Iterator[list[Tensor]]:
    """A list that holds the layer's last map (B, C, h, w) once the network has run, a leaf that scores depend on."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> Tensor:
        check_map(layer, output)
        activation: Tensor = output.detach().requires_grad_()  # what came before needs no graph, frozen or not
        seen[:] = [activation]
        return activation.clone()  # an activation in place would overwrite what is shown

    handle = layer.module.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


def check_map(layer: Layer, output: Any) -> None:
    """Refuse an output without places, or with channels in another order."""
    offer = f"choose one of {layer.others}" if layer.others else "choose a convolutional layer"
    if not isinstance(output, Tensor) or output.ndim != 4:
        found = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise LayerError(f"{layer.name} gives {found}, where a map needs (B, C, h, w): {offer}")
    if layer.channels not in (None, output.shape[1]):
        raise LayerError(
            f"{layer.name} gives {tuple(output.shape)}, its {layer.channels} channels not in second place: take a "
            "convolutional network, such as a ResNet"
        )
    if output.shape[2] * output.shape[3] == 1:
        raise LayerError(f"{layer.name} gives a map of 1 x 1, which has no places: {offer}, or give larger images")


def prepared(network: nn.Module, images: Tensor) -> Tensor:
    """Images (B, C, H, W) as numbers of the network's own type and place; ValueError for what are no images of it."""
    convolution = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    channels = None if convolution is None else convolution.in_channels
    fits = images.ndim == 4 and images.numel() and channels in (None, images.shape[1])
    if not fits or not images.is_floating_point():
        raise ValueError(
            f"images are {images.dtype} {tuple(images.shape)}: give normalised floats (B, {channels or 'C'}, H, W), "
            "one image as a batch of 1"
        )
    weights = next(network.parameters(), images)
    images = images.detach().clone() if images.is_inference() else images.detach()
    return images.to(weights.device, weights.dtype)


def activations(model: nn.Module, images: Tensor, layer: str | nn.Module | None = None) -> Tensor:
    """A layer's map (B, C, h, w) of normalised images (B, 3, H, W), in single precision at least, without graph."""
    network = network_of(unwrapped(model))
    place = find_layer(network, layer)
    with untouched(network), watched(place) as seen:
        with torch.no_grad():
            network(prepared(network, images))
        return wide(reached(place, seen))


def reached(layer: Layer, seen: list[Tensor]) -> Tensor:
    """The recorded output of a layer; LayerError where the pass left it out."""
    if not seen:
        raise LayerError(f"{layer.name} took no part in the pass: choose one of {layer.others or 'those that do'}")
    return seen[0]


def wide(values: Tensor) -> Tensor:
    """The values without graph, in single precision at least: means and sums of halves are not to be trusted."""
    return values.detach().to(torch.promote_types(values.dtype, torch.float32))


def enlarged(maps: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Maps (B, h, w) at a size (H, W), each divided by its highest value; what is below zero, and a map of it, is 0.

    A map that is not finite somewhere is NaN everywhere.
    CoarseMapWarning, once from each place that calls, where h or w is below 7.
    """
    h, w = maps.shape[-2:]
    if min(h, w) < FINE:
        sentence = f"a map has {h} x {w} places, fewer than {FINE} x {FINE}: take larger images or an earlier layer"
        warnings.warn(sentence, CoarseMapWarning, stacklevel=3)
    large = F.interpolate(maps.clamp_min(0)[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]
    peaks = large.amax((1, 2), keepdim=True)
    shares = torch.where(peaks > 0, large / peaks, 0.0).clamp(0, 1)
    return torch.where(maps.isfinite().all(2).all(1)[:, None, None], shares, torch.nan)
