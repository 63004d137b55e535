"""Networks built by timm, their weights loaded whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, resolve_pretrained_cfg
from torch import Tensor, nn

from ssl_backbones.fetch import published_weights
from ssl_backbones.registry.errors import PretrainedWeightsError, explain_weights


def headless_cfg(side: int, pooled: int, **fields: Any) -> dict[str, Any]:
    """timm's description of a headless network for images of a side in pixels, with `fields` added or replaced."""
    return {
        "input_size": (3, side, side),
        "pool_size": (pooled, pooled),
        "interpolation": "bilinear",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "num_classes": 0,
        "first_conv": "conv1",
        "classifier": "fc",
        "license": "apache-2.0",
        **fields,
    }


def build(network: type[nn.Module], variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    """The network as timm builds it; PretrainedWeightsError unless all weights asked for are there."""
    model: nn.Module
    if not pretrained:
        model = build_model_with_cfg(network, variant, False, **kwargs)
        return model
    cfg = resolve_pretrained_cfg(variant, kwargs.get("pretrained_cfg"), kwargs.get("pretrained_cfg_overlay"))
    name = f"{variant}.{cfg.tag}" if cfg.tag else variant
    if not (cfg.state_dict or cfg.file or cfg.hf_hub_id):
        weights = published_weights(name, cfg.url, kwargs.get("cache_dir"))
        kwargs["pretrained_cfg_overlay"] = {**(kwargs.get("pretrained_cfg_overlay") or {}), "state_dict": weights}
    if cfg.file and not cfg.state_dict and not Path(cfg.file).exists():
        raise PretrainedWeightsError(f"the weights of {name!r} should be in {str(cfg.file)!r}, but nothing is there")
    with explain_weights(name):
        model = build_model_with_cfg(network, variant, True, pretrained_filter_fn=whole_backbone, **kwargs)
    for tensor in model.state_dict(keep_vars=True).values():
        # transformers 5 resets the running statistics of a timm model that it has just had loaded, but for this mark.
        tensor._is_hf_initialized = True
    if not cfg.state_dict:
        described: Any = model.pretrained_cfg
        described.pop("state_dict", None)  # timm would keep a second copy of all weights with the model
    return model


def whole_backbone(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The weights under the model's own names; PretrainedWeightsError if some are missing, extra or of another shape.

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
    if missing or extra or misshapen:
        faults = {"lack": missing, "have in excess": extra, "have in another shape": misshapen}
        listed = "; they ".join(f"{fault} {_few(keys)}" for fault, keys in faults.items() if keys)
        raise PretrainedWeightsError(
            f"these are not the weights of this {type(model).__name__}: they {listed}; turn another project's "
            "checkpoint into a folder to load with `ssl-backbones convert FILE --out DIR`"
        )
    return weights if has_head(model) else given


def untrained(architecture: str, **kwargs: Any) -> nn.Module:
    """A network of timm's without head, as for a method to train: random weights, images prepared as for a ResNet."""
    known = timm.get_pretrained_cfg(architecture, allow_unregistered=False)
    told = {name: getattr(known, name) for name in ("input_size", "pool_size", "first_conv", "classifier")}
    cfg = headless_cfg(known.input_size[-1], 1, **told, crop_pct=0.875, fixed_input_size=known.fixed_input_size)
    if architecture in timm.list_models(module="resnet"):
        kwargs = {"zero_init_last": False, **kwargs}
    model: nn.Module = timm.create_model(architecture, pretrained_cfg=cfg, **{"num_classes": 0, **kwargs})
    return model


def has_head(model: nn.Module) -> bool:
    """True if the network ends in a classifier of its own."""
    return "fc.weight" in model.state_dict()


def _few(keys: list[str], shown: int = 4) -> str:
    rest = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return ", ".join(keys[:shown]) + rest
