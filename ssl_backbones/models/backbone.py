"""What a method asks of a backbone: a timm model without head."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import Tensor, nn

from ssl_backbones.views.center_crop import CenterCrop


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


def center_crop(backbone: nn.Module, size: int | None = None) -> CenterCrop:
    """The middle crop that the backbone's description names, at `size` pixels where that is given."""
    cfg: Any = backbone.pretrained_cfg
    size = size or cfg["input_size"][-1]
    return CenterCrop(size, cfg["crop_pct"], cfg["interpolation"], tuple(cfg["mean"]), tuple(cfg["std"]))


def weights_sha256(backbone: nn.Module) -> str:
    """One sha256 over the names and values of all weights and statistics."""
    digest = hashlib.sha256()
    for name, value in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
