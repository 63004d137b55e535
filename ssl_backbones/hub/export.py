"""A backbone, or a classifier on one, as a folder that plain timm loads: model.safetensors and config.json."""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import safetensors.torch
import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import PretrainedCfg
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_backbones.files import kept_with_all, write_file, write_json
from ssl_backbones.refusal import Refusal
from ssl_backbones.views.center_crop import PREPARATION
from ssl_backbones.views.normalise import for_channels
from ssl_backbones.weightless import weightless

KEPT = ("input_size", *PREPARATION)
"""Fields of timm's configuration that say how images are prepared."""
USUAL: dict[str, Any] = {
    "input_size": [3, 224, 224],
    "mean": list(IMAGENET_DEFAULT_MEAN),
    "std": list(IMAGENET_DEFAULT_STD),
    "interpolation": "bilinear",
    "crop_pct": 0.875,
}
"""Those of a network without a description."""


class BackboneError(Refusal, ValueError):
    """A network that timm would not make again of a folder; the message says what differs."""


def save_backbone(
    backbone: nn.Module,
    folder: str | os.PathLike[str],
    architecture: str,
    *,
    input_size: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
    crop_pct: float | None = None,
    license: str | None = None,
    tag: str | None = None,
    description: str | None = None,
    origin_url: str | None = None,
    paper_name: str | None = None,
    paper_ids: str | None = None,
    half: bool = False,
) -> Path:
    """Write a headless backbone; `timm.create_model(f"local-dir:{folder}", pretrained=True)` gives the same tensors.

    `architecture` is the network's own name, `resnet50` and not `resnet50_lewel_b`, so that plain timm knows it. The
    rest is how images are to be prepared, by default as the network's own description says (give the size that it was
    trained at), and where the weights come from; with `half`, matrices and kernels are kept as float16, which is exact
    for a backbone that is `rounded`. Return the folder. BackboneError for a network that the folder could not hold.
    """
    _check_kind(backbone, architecture)
    asked = {"input_size": input_size, "mean": mean, "std": std, "interpolation": interpolation, "crop_pct": crop_pct}
    about: dict[str, Any] = {"license": license, "description": description, "origin_url": origin_url, "tag": tag}
    config = _config(backbone, architecture, asked, **about, paper_name=paper_name, paper_ids=paper_ids)
    return _write(backbone, Path(folder), config, half)


def save_classifier(
    backbone: nn.Module,
    layer: nn.Linear,
    label_names: Sequence[str],
    folder: str | os.PathLike[str],
    architecture: str,
    *,
    input_size: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
    crop_pct: float | None = None,
    license: str | None = None,
    description: str | None = None,
    origin_url: str | None = None,
) -> Path:
    """Write a headless backbone with the layer, from its outputs (B, D) to logits (B, C), that learned to classify.

    `timm.create_model(f"local-dir:{folder}", pretrained=True)` gives these logits. The names are those of the classes,
    the first first; the rest is as for `save_backbone`. Return the folder. BackboneError for a network that the folder
    could not hold, such as one that ends in anything but one linear layer, and for more names than classes.
    """
    _check_kind(backbone, architecture)
    if len(label_names) > layer.out_features:
        raise BackboneError(
            f"label_names has {len(label_names)} names, but the layer tells {layer.out_features} classes apart: give "
            "one name for each"
        )
    network = _joined(backbone, layer, architecture)
    asked = {"input_size": input_size, "mean": mean, "std": std, "interpolation": interpolation, "crop_pct": crop_pct}
    about: dict[str, Any] = {"license": license, "description": description, "origin_url": origin_url}
    config = _config(network, architecture, asked, classes=layer.out_features, label_names=label_names, **about)
    return _write(network, Path(folder), config)


def _joined(backbone: nn.Module, layer: nn.Linear, architecture: str) -> nn.Module:
    """A copy of a headless network that ends in the layer; BackboneError where its own classifier is another kind."""
    network: Any = copy.deepcopy(backbone)
    network.reset_classifier(layer.out_features)
    own = network.get_classifier()
    if not isinstance(own, nn.Linear) or str(own) != str(layer):
        raise BackboneError(
            f"timm's {architecture!r} ends in {' '.join(str(own).split())} and not in {layer}: put the classifier on "
            "another network, or keep its backbone and its layer apart"
        )
    own.load_state_dict(layer.state_dict())
    return network  # type: ignore[no-any-return]


def _write(network: nn.Module, folder: Path, config: dict[str, Any], half: bool = False) -> Path:
    """Write a network with its config.json, if timm would make it again of that: both files, or none that is new."""
    _check(network, _loaded(config), config["architecture"])
    kept = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    kept = {key: _halved(value) for key, value in kept.items()} if half else kept
    folder.mkdir(parents=True, exist_ok=True)
    files = (folder / "model.safetensors", folder / "config.json")
    with kept_with_all(files):
        write_file(files[0], safetensors.torch.save(kept, metadata={"format": "pt"}))
        write_json(files[1], config)
    return folder


def preparation(model: nn.Module) -> dict[str, Any]:
    """A model's preparation of images, as far as it describes one: size, mean, std, interpolation and crop."""
    cfg: Any = getattr(model, "pretrained_cfg", None) or {}
    return {name: plain(cfg[name]) for name in KEPT if name in cfg}


def _channels(backbone: nn.Module) -> int | None:
    """The channels of a network's images; None where its description does not say which layer sees them."""
    weight = backbone.state_dict().get(f"{(getattr(backbone, 'pretrained_cfg', None) or {}).get('first_conv')}.weight")
    return None if weight is None else weight.shape[1]


def _prepared(backbone: nn.Module, asked: dict[str, Any]) -> dict[str, Any]:
    """The preparation that is asked for, and the network's own where nothing is, for the channels that it takes.

    Mean and std of other channels are repeated or cut. BackboneError where others are asked for.
    """
    prepared = USUAL | preparation(backbone)
    channels = _channels(backbone) or (prepared | asked)["input_size"][0]
    of_all = {name: for_channels(prepared[name], channels) for name in ("mean", "std") if len(prepared[name]) > 1}
    prepared |= of_all | {"input_size": [channels, *prepared["input_size"][1:]]} | asked
    if prepared["input_size"][0] != channels:
        size = tuple(prepared["input_size"])
        raise BackboneError(f"input_size is {size}, but this network takes images of {channels} channels")
    for name in ("mean", "std"):
        if len(prepared[name]) not in (1, channels):
            count = len(prepared[name])
            raise BackboneError(f"{name} has {count} values, but must have one, or one for each of {channels} channels")
    return prepared


def plain(value: Any) -> Any:
    """A sequence as a list, as JSON has it; anything else as it is."""
    return value if isinstance(value, str) or not isinstance(value, Sequence) else list(value)


def rounded(backbone: nn.Module) -> nn.Module:
    """A copy of a backbone with matrices and kernels rounded to float16; its biases and statistics stay as they are."""
    copied = copy.deepcopy(backbone)
    copied.load_state_dict({key: _halved(value) for key, value in copied.state_dict().items()})
    return copied


def _halved(value: Tensor) -> Tensor:
    """A matrix or a kernel as float16; any other tensor as it is."""
    return value.half() if value.dim() > 1 else value


def _config(
    network: Any,
    architecture: str,
    asked: Mapping[str, Any],
    *,
    classes: int = 0,
    label_names: Sequence[str] = (),
    **fields: Any,
) -> dict[str, Any]:
    """The content of config.json for a network, by the preparation that is asked for; of `fields`, those known."""
    known: Any = timm.get_pretrained_cfg(architecture) or PretrainedCfg()
    prepared = _prepared(network, {name: plain(value) for name, value in asked.items() if value is not None})
    input_size, reduction = prepared["input_size"], network.feature_info[-1]["reduction"]
    cfg = {
        "custom_load": False,
        "input_size": input_size,
        "fixed_input_size": known.fixed_input_size,
        "crop_mode": "center",
        "num_classes": classes,
        "pool_size": [math.ceil(side / reduction) for side in input_size[1:]],
        # timm would take weights for other than one or three channels as weights for RGB, and draw the layer anew
        "first_conv": known.first_conv if input_size[0] in (1, 3) else None,
        "classifier": known.classifier,
        **prepared,
        **{name: value for name, value in fields.items() if value is not None},
    }
    pool = getattr(network, "global_pool", None)
    arguments = _arguments(network)
    return {
        "architecture": architecture,
        "num_classes": classes,
        **({"label_names": list(label_names)} if label_names else {}),
        "num_features": network.num_features,
        "global_pool": pool if isinstance(pool, str) else getattr(pool, "pool_type", "avg"),
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": cfg,
    }


def _arguments(backbone: Any) -> dict[str, Any]:
    """The arguments that timm made a network with and JSON can hold.

    Those of its first weights and of training are left out, and what its description says.
    """
    left_out = re.compile("num_classes|in_chans|zero_init_last|.*_rate")
    plain = (bool, int, float, str, list, tuple, dict)
    given = getattr(backbone, "_model_args", {})
    return {name: value for name, value in given.items() if isinstance(value, plain) and not left_out.fullmatch(name)}


def _loaded(config: dict[str, Any]) -> nn.Module:
    """The network that timm makes of a config.json, without memory for its weights."""
    with TemporaryDirectory() as folder, weightless():
        write_json(Path(folder) / "config.json", config)
        model: nn.Module = timm.create_model(f"local-dir:{folder}")
    return model


def _check_kind(backbone: nn.Module, architecture: str) -> None:
    """Refuse an architecture that timm does not know, and what is none of its networks."""
    if not timm.is_model(architecture) or "." in architecture:
        raise BackboneError(f"timm knows no architecture {architecture!r}; name the network alone, as in 'resnet50'")
    if not (hasattr(backbone, "feature_info") and hasattr(backbone, "num_features")):
        raise BackboneError(
            f"a {type(backbone).__name__} is no network of timm's: save the bare backbone, without head or wrapper"
        )


def _check(given: nn.Module, loaded: nn.Module, architecture: str) -> None:
    """Refuse what would be loaded as another network, with other tensors or other layers."""
    found, expected = ({key: tuple(value.shape) for key, value in one.state_dict().items()} for one in (given, loaded))
    if wrong := unlike(found, expected):
        kind = "classifying" if getattr(loaded, "num_classes", 0) else "headless"
        raise BackboneError(
            f"these are not the weights of a {kind} {architecture!r}: {len(wrong)} tensors are missing, extra or of "
            f"another shape, first {wrong[0]!r}; save the bare backbone, without head or wrapper"
        )
    if wrong := unlike(layers(given), layers(loaded)):
        raise BackboneError(
            f"timm would load this {architecture!r} as another network, {len(wrong)} layers of which differ, first "
            f"{wrong[0]!r}: make it by timm.create_model with arguments that JSON can hold, such as act_layer='silu'"
        )


def unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names under which two mappings hold different things."""
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def layers(network: nn.Module) -> dict[str, str]:
    """Each layer that decides what a network computes in evaluation, in words; norms of batches are told by tensors."""
    found = {name: layer for name, layer in network.named_modules() if not isinstance(layer, _BatchNorm | nn.Identity)}
    return {
        name: f"{type(layer).__name__}({layer.extra_repr()})" for name, layer in found.items() if not _is_drop(layer)
    }


def _is_drop(layer: nn.Module) -> bool:
    """True for a layer that drops values or paths, and that in training alone."""
    return type(layer).__name__.startswith(("Drop", "PatchDropout"))
