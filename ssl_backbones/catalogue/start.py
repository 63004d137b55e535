"""Weights to start from: opened by whatever names them, held against the network, and put into it as a whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from timm.models import adapt_input_conv
from torch import Tensor, nn

from ssl_backbones.catalogue.lookup import architecture_of, create_model
from ssl_backbones.checks import few
from ssl_backbones.convert.conversion import convert, not_finite
from ssl_backbones.models.build import as_drawn, headless_cfg
from ssl_backbones.models.provenance import Provenance, provenance_of
from ssl_backbones.models.records_behind import shown
from ssl_backbones.refusal import Refusal
from ssl_backbones.registry.errors import PretrainedWeightsError
from ssl_backbones.views.normalise import for_channels

WAYS_OUT = (
    "name a mirror with HF_ENDPOINT, a folder or a file that was brought here from another machine with --init, or "
    "leave --init out, which trains from random weights and evaluates the model's own"
)


class StartError(Refusal, ValueError):
    """Weights that a network cannot start from; the message says what is missing and what would work."""


@dataclass(frozen=True)
class Start:
    """The weights of a headless network, and their provenance."""

    weights: Mapping[str, Tensor]
    provenance: Provenance
    left_out: str
    """The parts that are not taken, in words."""

    def in_words(self, resized: str = "") -> str:
        """Its licence and source, what is not taken, and the levels of images that are taken over; then how these are
        resized, where that is too.
        """
        given = self.provenance
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (given.mean, given.std))
        return (
            f"Starts from {given}; {self.left_out}.\n"
            f"Images are prepared as the start's were: mean {mean}, deviation {std}{resized}."
        )


def open_start(name: str, architecture: str) -> Start:
    """The weights that a registered name, a name of timm's, `hf-hub:org/name`, a folder or a file names.

    A file is read as `convert` reads it, and has to hold that architecture; of all others the head is left out.
    Raises StartError for weights that cannot be had or are another network's, UnknownModelError for a name that means
    nothing, ConversionError for a file that does not fill the network.
    """
    file = Path(name)
    if file.name == "model.safetensors" and (file.parent / "config.json").is_file():
        name, file = str(file.parent), file.parent  # whose description tells how images are prepared
    if file.is_file():
        model, left_out = _from_file(file, architecture)
    else:
        model, left_out = _by_name(name)
    given = provenance_of(name, model)
    if given.architecture != architecture:
        raise StartError(
            f"{given.shown} is a {given.architecture or 'network without a name'} and a {architecture} is to be "
            "trained: name a start of that network with --init, or a model of the start's network"
        )
    return Start(model.state_dict(), given, left_out)


def _from_file(file: Path, architecture: str) -> tuple[nn.Module, str]:
    """The network in a checkpoint of anybody's; its images are taken to be prepared in the usual way."""
    converted = convert(file, architecture)
    about = {"license": None, "origin_url": f"{file.name}, a file"}
    model: nn.Module = timm.create_model(
        architecture, num_classes=0, pretrained_cfg=headless_cfg(architecture, **about)
    )
    model.load_state_dict(converted.weights)
    return model, f"{converted.source}; {converted.rest}"


def _by_name(name: str) -> tuple[nn.Module, str]:
    """The network of a name, without its head of classes."""
    try:
        model = create_model(name, pretrained=True)
    except PretrainedWeightsError as error:
        raise StartError(f"{error.fault}; {WAYS_OUT}" if error.fault else f"{shown(name)}: {error}") from error
    classes = int(getattr(model, "num_classes", 0))
    if classes:
        model.reset_classifier(0)  # type: ignore[operator]
    return model, f"left out: its head of {classes} classes" if classes else "it has no head"


def create_started(
    model: str | os.PathLike[str], init: str = "", random: bool = False
) -> tuple[nn.Module, Start | None]:
    """The headless network that a model names, and the start that `init` names, whose weights it then holds.

    Without `init` it holds the model's own weights; with `random` they are drawn as pretraining begins with them.
    Raises what `create_model`, `open_start` and `fill` raise.
    """
    if not init:
        drawn = as_drawn(architecture_of(model)) if random else {}
        return create_model(model, pretrained=not random, num_classes=0, **drawn), None
    start = open_start(init, architecture_of(model))
    given, backbone = start.provenance, create_model(model, num_classes=0)
    fill(backbone, start)
    described: Any = backbone
    origin = {"license": given.licence, "origin_url": given.source, "description": None}
    described.pretrained_cfg = {**described.pretrained_cfg, "num_classes": 0, **origin}
    return backbone, start


def check_same(given: Provenance, recorded: Provenance) -> None:
    """Raise StartError for other weights than those that a run recorded as its start."""
    if given.sha256 != recorded.sha256:
        raise StartError(
            f"{given.shown} holds other weights than the run started from (sha256 {given.sha256[:12]} instead of "
            f"{recorded.sha256[:12]}): bring those back"
        )


def fill(backbone: nn.Module, start: Start) -> None:
    """Give a headless backbone every tensor of a start, and its preparation of images; StartError unless all fit.

    The first convolution is adapted to another number of channels as timm does it.
    """
    given, own = dict(start.weights), backbone.state_dict()
    for key in _first_convolutions(start.provenance.architecture):
        if key in given and key in own:
            given[key] = adapted(given[key], own[key].shape[1])
    faults = {
        "lacks": [key for key in own if key not in given],
        "has in excess": [key for key in given if key not in own],
        "has in another shape": [key for key in own if key in given and given[key].shape != own[key].shape],
    }
    if any(faults.values()):
        listed = "; it ".join(f"{fault} {few(keys, 4)}" for fault, keys in faults.items() if keys)
        raise StartError(
            f"{start.provenance.shown} does not fill a headless {start.provenance.architecture}, so nothing was begun: "
            f"it {listed}; name the publisher's whole weights with --init"
        )
    if broken := not_finite(given):
        raise StartError(
            f"{start.provenance.shown} holds numbers that are not finite, in {few(broken, 4)}: take another checkpoint"
        )
    backbone.load_state_dict(given)
    take_preparation(backbone, start.provenance)


def take_preparation(backbone: nn.Module, given: Provenance) -> None:
    """Have a backbone expect images that are prepared as the start's were."""
    channels = next((backbone.state_dict()[key].shape[1] for key in _first_convolutions(given.architecture)), 3)
    described: Any = backbone
    described.pretrained_cfg = {
        **described.pretrained_cfg,
        **given.preparation,
        "mean": for_channels(given.mean, channels),
        "std": for_channels(given.std, channels),
    }


def _first_convolutions(architecture: str) -> list[str]:
    """The names of the weights that see the image's channels; a folder's description may leave them out."""
    known = timm.get_pretrained_cfg(architecture)
    named = (known.first_conv if known else None) or ()
    return [f"{name}.weight" for name in ((named,) if isinstance(named, str) else named)]


def adapted(weight: Tensor, channels: int) -> Tensor:
    """A first convolution's weight (O, I, h, w) for another number of input channels.

    As in timm: one channel takes the sum of all, any other number repeats them and keeps the answer to grey.
    """
    own = weight.shape[1]
    if channels == own:
        return weight
    if own == 3:
        fitted: Tensor = adapt_input_conv(channels, weight)
        return fitted
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight.repeat(1, -(-channels // own), 1, 1)[:, :channels] * (own / channels)
