"""Networks built by timm, their weights loaded whole or not at all."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import is_model_in_modules, resolve_pretrained_cfg
from torch import Tensor, nn

from ssl_backbones.checks import few
from ssl_backbones.convert.conversion import not_finite
from ssl_backbones.convert.subtree import COUNTER
from ssl_backbones.credentials import without_credentials
from ssl_backbones.fetch import published_weights
from ssl_backbones.fetch.from_hub import require_safe_weights
from ssl_backbones.registry.backbones import SMALL
from ssl_backbones.registry.errors import PretrainedWeightsError, explain_weights

HEADLESS: dict[str, Any] = {
    "interpolation": "bilinear",
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "num_classes": 0,
    "license": "apache-2.0",
}
"""The description of every network without head for timm."""


def headless_cfg(architecture: str, **fields: Any) -> dict[str, Any]:
    """timm's description of a network without head, with `fields` added or replaced."""
    known = timm.get_pretrained_cfg(architecture)
    kept = ("input_size", "pool_size", "first_conv", "classifier", "fixed_input_size")
    crop_pct = known.crop_pct if architecture in SMALL else 0.875
    return {**HEADLESS, "crop_pct": crop_pct, **{name: getattr(known, name) for name in kept}, **fields}


def build(make: Callable[..., nn.Module], variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    """The network that timm makes, registered as `variant`; PretrainedWeightsError unless all weights are there."""
    overlay = kwargs.pop("pretrained_cfg_overlay", None)
    cfg = resolve_pretrained_cfg(variant, kwargs.pop("pretrained_cfg", None), overlay)
    if not pretrained:
        return make(pretrained=False, pretrained_cfg=cfg, **kwargs)
    name, given = f"{variant}.{cfg.tag}" if cfg.tag else variant, bool(cfg.state_dict)
    if not (given or cfg.file or cfg.hf_hub_id):
        cfg = replace(cfg, state_dict=published_weights(name, cfg.url, kwargs.get("cache_dir")))
    if cfg.file and not given and not Path(cfg.file).exists():
        raise PretrainedWeightsError(f"the weights of {name!r} should be in {str(cfg.file)!r}, but nothing is there")
    require_safe(vars(cfg), kwargs.get("cache_dir"))
    with explain_weights(name):
        model = make(pretrained=True, pretrained_cfg=cfg, pretrained_filter_fn=whole_backbone, **kwargs)
    for tensor in model.state_dict(keep_vars=True).values():
        # transformers 5 resets the running statistics of a timm model that it has just had loaded, but for this mark.
        tensor._is_hf_initialized = True
    if not given:
        described: Any = model.pretrained_cfg
        described.pop("state_dict", None)  # timm would keep a second copy of all weights with the model
        described |= {"url": without_credentials(described["url"])} if described.get("url") else {}
    return model


def require_safe(cfg: Mapping[str, Any], cache_dir: str | os.PathLike[str] | None = None) -> None:
    """ConversionError for a configuration whose weights are a pickle, if one can make this torch run code."""
    if cfg.get("state_dict"):
        return
    if cfg.get("file"):
        require_safe_weights(f"local-dir:{cfg['file']}")
    elif cfg.get("hf_hub_id"):
        require_safe_weights(f"hf-hub:{cfg['hf_hub_id']}", cache_dir)


def whole_backbone(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The weights under the model's own names; PretrainedWeightsError if they do not fill it with finite floats.

    timm loads leniently as soon as the number of classes differs, and would keep random weights for what is missing.
    """
    weights = {key.removeprefix("module."): value for key, value in weights.items()}
    wanted = {key: value for key, value in model.state_dict().items() if not key.startswith("fc.")}
    given = {key: value for key, value in weights.items() if not key.startswith("fc.")}
    missing, extra = [key for key in wanted if key not in given], [key for key in given if key not in wanted]
    misshapen = [
        f"{key} {tuple(given[key].shape)} for {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in given and key != "conv1.weight" and given[key].shape != value.shape
    ]
    taken = weights if has_head(model) else given
    faults = {
        "lack": missing,
        "have in excess": extra,
        "have in another shape": misshapen,
        "have in another type than floats": [
            key for key, value in taken.items() if not (value.is_floating_point() or key.endswith(COUNTER))
        ],
        "hold numbers that are not finite in": not_finite(taken),
    }
    if any(faults.values()):
        listed = "; they ".join(f"{fault} {few(keys, 4)}" for fault, keys in faults.items() if keys)
        raise PretrainedWeightsError(
            f"these are not the weights of this {type(model).__name__}: they {listed}; turn another project's "
            "checkpoint into a folder to load with `ssl-backbones convert FILE --out DIR`"
        )
    return taken


def untrained(architecture: str, **kwargs: Any) -> nn.Module:
    """A network of timm's without head and without weights that anybody publishes, as methods train it."""
    cfg = headless_cfg(architecture)
    given = {"num_classes": 0, **as_drawn(architecture), **kwargs}
    model: nn.Module = timm.create_model(architecture, pretrained_cfg=cfg, **given)
    return model


def as_drawn(architecture: str) -> dict[str, Any]:
    """Arguments for timm that draw a network as training begins with it: no block of a ResNet is an identity."""
    return {"zero_init_last": False} if is_model_in_modules(architecture, ("resnet",)) else {}


def has_head(model: nn.Module) -> bool:
    """True if the network ends in a classifier of its own."""
    return "fc.weight" in model.state_dict()
