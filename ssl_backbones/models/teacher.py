"""A frozen network that another one learns from: opened by name, and shown images as it wants them."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import timm
import torch
from torch import Tensor, nn

from ssl_backbones.fetch.from_hub import require_safe_weights, small_file
from ssl_backbones.files import read_object
from ssl_backbones.models.patches import parts, patch_of
from ssl_backbones.models.provenance import Provenance, provenance_of
from ssl_backbones.refusal import Refusal, reason
from ssl_backbones.registry.errors import PretrainedWeightsError, explain_weights
from ssl_backbones.registry.names import HUB
from ssl_backbones.registry.tags import TAGS
from ssl_backbones.views import CenterCrop

Output = Literal["pooled", "class", "mean", "both"]
"""A teacher's features of an image: by its own pooling, its class token, the mean of its patches, or both."""
WAYS_OUT = (
    "take a mirror with HF_ENDPOINT set before Python starts, name a folder that holds its config.json and "
    "model.safetensors with --method.teacher, or fetch it where there is a network with `hf download` and copy that "
    "cache here"
)


class TeacherError(Refusal, ValueError):
    """A teacher that cannot be had, or cannot be learnt from as asked; the message is one sentence."""


@dataclass(frozen=True)
class Seen:
    """A teacher's features of images."""

    features: Tensor
    """(B, D)"""
    maps: Tensor | None
    """(B, E, h, w); None where it has no feature maps."""


@final
class Teacher:
    """A network of timm's or of a folder without its head, in eval mode and without gradient.

    It is no part of a method: neither trained, nor saved, nor copied. Until `open` it is known by its description
    alone, without weights; it follows the images that it is shown to their device and precision.
    """

    def __init__(self, name: str, layer: str = "", output: Output = "pooled") -> None:
        """Raise TeacherError for a name that means nothing, a layer or an output that the network does not have."""
        self.name, self.layer, self.output = name, layer, output
        self.source = located(name)
        skeleton = self.made(None, weights=False)
        self.cfg = described(name, self.source, skeleton)
        self.own_side = int(self.cfg["input_size"][-1])
        self.fixed = bool(self.cfg.get("fixed_input_size"))
        self.patch = patch_of(skeleton)
        seen = self.tried(skeleton, self.own_side)
        self.width = seen.features.shape[1]
        self.map_width = None if seen.maps is None else seen.maps.shape[1]
        self.network: nn.Module | None = None
        self.side = 0
        self.provenance: Provenance | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        """The teacher itself: nothing of it changes, so copies of a method share it."""
        return self

    def __repr__(self) -> str:
        return f"Teacher({self.name!r}, {self.layer!r}, {self.output!r})"

    def fitting(self, side: int) -> int:
        """The multiple of the patch's side that is nearest to a side of images, at least one patch."""
        return max(self.patch, round(side / self.patch) * self.patch)

    def crop(self, side: int) -> CenterCrop:
        """The preparation of images for it: the middle square at `side`, its own interpolation and normalisation."""
        mean, std = tuple(self.cfg["mean"]), tuple(self.cfg["std"])
        return CenterCrop(side, 1.0, self.cfg["interpolation"], mean, std)

    def affine(self, mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[Tensor, Tensor]:
        """Shift and scale (3, 1, 1) from a view's normalisation to its own: x * scale + shift.

        TeacherError for views that are neither RGB nor grey.
        """
        if len(mean) not in (1, 3):
            raise TeacherError(
                f"the teacher {self.name!r} looks at RGB, and the views have {len(mean)} channels: take a method "
                "without a teacher, or leave --in_chans out"
            )
        usual = torch.tensor((mean, std), dtype=torch.float64)[:, :, None, None]
        own = torch.tensor((self.cfg["mean"], self.cfg["std"]), dtype=torch.float64)[:, :, None, None]
        return ((usual[0] - own[0]) / own[1]).float(), (usual[1] / own[1]).float()

    def open(self, side: int) -> nn.Module:
        """The network with its weights, for images of `side` pixels, opened once.

        Raises TeacherError for a side that it does not take, and for weights that cannot be had.
        """
        if self.network is not None and side == self.side:
            return self.network
        if side % self.patch:
            raise self.unfit(side, ValueError(f"its patches are {self.patch} px wide"))
        self.tried(self.made(side, weights=False), side)
        network = self.made(side, weights=True).eval().requires_grad_(False)
        if self.provenance is None:  # of the weights as they are published, not fitted to a side
            self.provenance = provenance_of(self.name, self.made(None, weights=True) if self.fixed else network)
        self.network, self.side = network, side
        return network

    @property
    def sha256(self) -> str:
        """The digest of its weights; known once it was opened."""
        assert self.provenance is not None, "the teacher was not opened"
        return self.provenance.sha256

    @torch.no_grad()
    def look(self, images: Tensor) -> Seen:
        """Features of images (B, 3, S, S) that are normalised as it wants them."""
        network = self.open(images.shape[-1])
        weights = next(network.parameters())
        if (weights.device, weights.dtype) != (images.device, images.dtype):
            network.to(images.device, images.dtype)
        return self.seen(network, images)

    def seen(self, network: nn.Module, images: Tensor) -> Seen:
        """The features (B, D) of images by the network with weights or without."""
        maps: Tensor | None
        if self.layer:
            prefix, maps = self.at_layer(network, images)
        else:
            last = network.forward_features(images)  # type: ignore[operator]
            prefix, maps = parts(network, last)
            if self.output == "pooled":
                return Seen(network.forward_head(last), maps)  # type: ignore[operator]
        return Seen(self.pooled(network, prefix, maps), maps)

    def at_layer(self, network: nn.Module, images: Tensor) -> tuple[Tensor | None, Tensor]:
        """Tokens before the patches (B, P, D), if there are any, and feature maps (B, D, h, w) of the chosen layer."""
        infos: Any = getattr(network, "feature_info", None) or []
        names = [info["module"] for info in infos]
        if self.layer not in names or not hasattr(network, "forward_intermediates"):
            raise TeacherError(
                f"the teacher {self.name!r} has no layer {self.layer!r}: choose one of {', '.join(names) or 'none'} "
                "with --method.teacher_layer, or leave it out for its last"
            )
        look: Any = network.forward_intermediates
        known = inspect.signature(look).parameters
        more = {name: True for name in ("norm", "return_prefix_tokens") if name in known}
        (found,) = look(images, [names.index(self.layer)], stop_early=True, intermediates_only=True, **more)
        maps, prefix = found if isinstance(found, tuple) else (found, None)
        return (prefix if prefix is not None and prefix.shape[1] else None), maps

    def pooled(self, network: nn.Module, prefix: Tensor | None, maps: Tensor | None) -> Tensor:
        """The features (B, D) that `output` asks for, of tokens (B, P, E) and feature maps (B, E, h, w)."""
        of_class = prefix[:, 0] if prefix is not None and getattr(network, "cls_token", None) is not None else None
        output = self.output
        if output == "pooled":
            own = getattr(network, "global_pool", "avg")
            output = "class" if own == "token" and of_class is not None else "mean"
        wanted = {"class": [of_class], "mean": [maps], "both": [of_class, maps]}[output]
        if any(part is None for part in wanted):
            lacking = "class token" if of_class is None and output != "mean" else "feature maps"
            raise TeacherError(
                f"the teacher {self.name!r} has no {lacking}, which teacher_output {output!r} is made of: choose "
                f"another of {', '.join(Output.__args__)} with --method.teacher_output"  # type: ignore[attr-defined]
            )
        found = [part if part.ndim == 2 else part.mean(dim=(2, 3)) for part in wanted if part is not None]
        return torch.cat(found, dim=1)

    def made(self, side: int | None, weights: bool) -> nn.Module:
        """The network for images of `side` pixels, its own where that is None; without weights, on no device."""
        named = {"img_size": side} if side is not None and self.fixed else {}
        try:
            with torch.device("cpu" if weights else "meta"), explain_weights(self.name):
                if weights and ":" in self.source:
                    require_safe_weights(self.source)
                    timm.create_model(self.source, pretrained=True)  # timm loads leniently where a head is left out
                network: nn.Module = timm.create_model(self.source, pretrained=weights, num_classes=0, **named)
        except PretrainedWeightsError as error:
            reason = str(error).partition("; ")[0]
            raise TeacherError(f"the teacher cannot be opened, {reason}: {WAYS_OUT}") from error
        except (TypeError, RuntimeError, AssertionError) as error:
            raise self.unfit(side, error) from error
        return network

    def tried(self, skeleton: nn.Module, side: int) -> Seen:
        """Its features of an image of that side, in shape alone; TeacherError where it takes none such."""
        try:
            with torch.no_grad():
                return self.seen(skeleton.eval(), torch.zeros(1, 3, side, side, device="meta"))
        except TeacherError:
            raise
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise self.unfit(side, error) from error

    def unfit(self, side: int | None, error: Exception) -> TeacherError:
        """The refusal of a network that cannot be made, or shown images, at a side."""
        return TeacherError(
            f"the teacher {self.name!r} takes no images of {side or 'its own'} px ({reason(error)[:200]}): "
            f"choose another side with --method.teacher_size, or another teacher"
        )


def located(name: str) -> str:
    """The teacher as timm takes it: a folder, a repository or a name with weights; TeacherError for none of these."""
    if not name:
        raise TeacherError(
            "there is no teacher to learn from: name a network of timm's with weights, such as "
            "vit_small_patch14_dinov2.lvd142m, hf-hub:org/name, or a folder, with --method.teacher"
        )
    if name.startswith(HUB):
        return name
    place = name.removeprefix("local-dir:")
    for folder in (place, os.path.join(place, "backbone")):
        if os.path.isfile(os.path.join(folder, "config.json")):
            return f"local-dir:{folder}"
    if os.path.isdir(place):
        raise TeacherError(
            f"the folder {place!r} holds no network, neither config.json nor backbone/config.json: name the folder "
            "that timm, `ssl-backbones convert` or a finished run wrote"
        )
    if not timm.is_model(name):
        raise TeacherError(
            f"no network of timm's, and no folder, is called {name!r}: `ssl-backbones list` and timm.list_models("
            "pretrained=True) show the names, and a repository is named 'hf-hub:ORG/NAME'"
        )
    if name not in {tag.name for tag in TAGS} and not timm.models.is_model_pretrained(name):
        raise TeacherError(
            f"nobody publishes weights of {name!r}, and random ones teach nothing: name one of timm.list_models("
            "pretrained=True), or a folder with weights"
        )
    return name


def described(name: str, source: str, network: nn.Module) -> dict[str, Any]:
    """timm's description of a teacher; TeacherError where it is not of RGB, or its normalisation is nowhere stated.

    timm would take ImageNet's for what a folder or a repository does not say.
    """
    cfg: dict[str, Any] = dict(getattr(network, "pretrained_cfg", {}))
    stated: Any = cfg
    if source.startswith(("local-dir:", *HUB)):
        config = config_of(source)
        stated = read_object(config, "restore it, or name another teacher", TeacherError).get("pretrained_cfg", {})
    if not (isinstance(stated, dict) and stated.get("mean") and stated.get("std")):
        raise TeacherError(
            f"the normalisation of the teacher {name!r} is unknown, as its config.json states no mean and std: write "
            'those that it was trained with there, under "pretrained_cfg", or name another teacher'
        )
    channels = cfg["input_size"][0]
    if channels != 3:
        raise TeacherError(
            f"the teacher {name!r} looks at images of {channels} channel{'s' * (channels > 1)}, and a teacher is shown "
            "RGB: name a network of RGB images"
        )
    return cfg


def config_of(source: str) -> Path:
    """The config.json of a folder or a repository, as timm takes them."""
    place = source.partition(":")[2]
    if not source.startswith(HUB):
        return Path(place, "config.json")
    repository, _, revision = place.partition("@")
    return small_file(repository, "config.json", revision or None)
