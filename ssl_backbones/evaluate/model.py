"""The backbone that is evaluated: made by name, put on its device, told apart by its weights."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ssl_backbones.catalogue.start import Start, create_started
from ssl_backbones.devices import gpu_here
from ssl_backbones.models.backbone import LayerError, center_crop, weights_sha256
from ssl_backbones.views import CenterCrop


class PooledLayer(nn.Module):
    """A backbone up to one of its layers, by the name that timm has for it, and the mean over positions."""

    def __init__(self, backbone: nn.Module, layer: str) -> None:
        super().__init__()
        self.backbone = backbone
        infos: Any = getattr(backbone, "feature_info", [])
        names = [info["module"] for info in infos]
        if layer not in names:
            raise LayerError(
                f"a {type(backbone).__name__} has no layer {layer!r}: choose one of {', '.join(names) or 'none'} with "
                "--layer"
            )
        self.index = names.index(layer)
        self.width: int = infos[self.index]["num_chs"]

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, C) of images (B, 3, H, W)."""
        (features,) = self.backbone.forward_intermediates(  # type: ignore[operator]
            images, indices=[self.index], stop_early=True, intermediates_only=True
        )
        pooled: Tensor = features.mean(dim=(2, 3))
        return pooled


@dataclass(frozen=True)
class EvaluatedModel:
    """A backbone in eval mode whose output (B, D) is measured, and how its images are prepared."""

    name: str
    """As it was asked for."""
    network: nn.Module
    """The whole backbone, or it up to a layer with the mean over positions."""
    layer: str | None
    """That layer, as timm names it."""
    device: torch.device
    crop: CenterCrop
    """The preparation of its images."""
    weights_sha256: str
    """Digest of the whole backbone."""
    start: Start | None = None
    """The weights that replace the model's own; None where none do."""

    @property
    def identity(self) -> dict[str, Any]:
        """All that its features depend on beside the prepared images, as JSON has it."""
        return {
            "weights": self.weights_sha256,
            "network": hashlib.sha256(repr(self.network).encode()).hexdigest(),
            "layer": self.layer,
        }


def open_model(
    model: str | os.PathLike[str],
    device: torch.device | None = None,
    *,
    size: int | None = None,
    layer: str | None = None,
    random: bool = False,
    seed: int = 0,
    init: str = "",
    channels: int = 3,
) -> EvaluatedModel:
    """The backbone of a registered name, `hf-hub:org/name` or a run's folder, the same in every process.

    Images of so many channels are prepared as its description says, at `size` where that is given. With `random` its
    weights are those that pretraining draws by that seed, with `init` those that this names, as pretraining takes
    them, and so is the preparation of images. Without a device it lies on the usual one. Raises LayerError for a layer
    that it does not have, and what `create_started` raises.
    """
    torch.manual_seed(seed)
    backbone, start = create_started(model, init, random)
    where = device or usual_device()
    return evaluated(os.fspath(model), backbone, where, size=size, layer=layer, start=start, channels=channels)


def evaluated(
    name: str,
    backbone: nn.Module,
    device: torch.device,
    *,
    size: int | None = None,
    layer: str | None = None,
    start: Start | None = None,
    channels: int = 3,
) -> EvaluatedModel:
    """A headless network on a device, whatever made it; LayerError for a layer that it does not have."""
    backbone.eval()
    network = PooledLayer(backbone, layer).eval() if layer else backbone
    network.to(device)
    crop = center_crop(backbone, size, channels)
    return EvaluatedModel(name, network, layer, device, crop, weights_sha256(backbone), start)


def usual_device() -> torch.device:
    """The GPU where there is one that is not excluded, or the CPU."""
    return torch.device("cuda" if gpu_here() else "cpu")
