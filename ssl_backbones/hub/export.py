"""A backbone as a folder that plain timm loads: model.safetensors and config.json."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from ssl_backbones.files import kept_with_all, write_file, write_json
from ssl_backbones.weightless import weightless


def save_backbone(
    backbone: nn.Module,
    folder: str | os.PathLike[str],
    architecture: str,
    *,
    input_size: tuple[int, int, int] = (3, 224, 224),
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
    interpolation: str = "bilinear",
    crop_pct: float = 0.875,
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
    rest is how images are to be prepared and where the weights come from; with `half`, matrices and kernels are kept as
    float16, which is exact for a backbone that is `rounded`. Return the folder.
    """
    weights = {key: value.detach().cpu().contiguous() for key, value in backbone.state_dict().items()}
    reference = _reference(architecture, input_size[0])
    _check(weights, reference, architecture)
    prepared = {"interpolation": interpolation, "crop_pct": crop_pct, "mean": list(mean), "std": list(std)}
    about = {"license": license, "description": description, "origin_url": origin_url}
    about |= {"paper_name": paper_name, "paper_ids": paper_ids}
    config = _config(reference, architecture, list(input_size), tag=tag, **prepared, **about)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = (folder / "model.safetensors", folder / "config.json")
    with kept_with_all(files):
        kept = {key: _halved(value) if half else value for key, value in weights.items()}
        write_file(files[0], safetensors.torch.save(kept, metadata={"format": "pt"}))
        write_json(files[1], config)
    return folder


def rounded(backbone: nn.Module) -> nn.Module:
    """A copy of a backbone with matrices and kernels rounded to float16; its biases and statistics stay as they are."""
    copied = copy.deepcopy(backbone)
    copied.load_state_dict({key: _halved(value) for key, value in copied.state_dict().items()})
    return copied


def _halved(value: Tensor) -> Tensor:
    """A matrix or a kernel as float16; any other tensor as it is."""
    return value.half() if value.dim() > 1 else value


@cache
def _reference(architecture: str, channels: int) -> Any:
    """The headless network of that name, without memory for its weights."""
    if not timm.is_model(architecture) or "." in architecture:
        raise ValueError(f"timm knows no architecture {architecture!r}; name the network alone, as in 'resnet50'")
    with weightless():
        return timm.create_model(architecture, num_classes=0, in_chans=channels)


def _config(reference: Any, architecture: str, input_size: Sequence[int], **fields: Any) -> dict[str, Any]:
    """The content of config.json for a headless network; of `fields`, those that are known."""
    reduction = reference.feature_info[-1]["reduction"]
    cfg = {
        "custom_load": False,
        "input_size": input_size,
        "fixed_input_size": False,
        "crop_mode": "center",
        "num_classes": 0,
        "pool_size": [math.ceil(side / reduction) for side in input_size[1:]],
        # timm would take weights for other than one or three channels as weights for RGB, and draw the layer anew
        "first_conv": reference.default_cfg["first_conv"] if input_size[0] in (1, 3) else None,
        "classifier": reference.default_cfg["classifier"],
        **{name: value for name, value in fields.items() if value is not None},
    }
    return {
        "architecture": architecture,
        "num_classes": 0,
        "num_features": reference.num_features,
        "global_pool": "avg",
        "pretrained_cfg": cfg,
    }


def _check(weights: dict[str, Tensor], reference: nn.Module, architecture: str) -> None:
    """Refuse what `architecture` could not load."""
    expected = {key: tuple(value.shape) for key, value in reference.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in weights.items()}
    wrong = sorted(key for key in expected.keys() | given.keys() if expected.get(key) != given.get(key))
    if wrong:
        raise ValueError(
            f"these are not the weights of a headless {architecture!r}: {len(wrong)} tensors are missing, extra or of "
            f"another shape, first {wrong[0]!r}; save the bare backbone, without head or wrapper"
        )
