"""Grad-CAM: the places of an image that a number is owed to. Selvaraju et al., 2017. https://arxiv.org/abs/1610.02391"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ssl_backbones.visualizers.inspection import (
    enlarged,
    find_layer,
    network_of,
    prepared,
    reached,
    untouched,
    unwrapped,
    watched,
    wide,
)
from ssl_backbones.visualizers.targets import Target, default_target


def grad_cam(
    model: nn.Module,
    images: Tensor,
    target: Target | Callable[[Tensor], Tensor] | None = None,
    layer: str | nn.Module | None = None,
) -> Tensor:
    """Maps (B, H, W) in [0, 1] of normalised images (B, 3, H, W): 1 at the place that counts most, 0 for none.

    `model` is a network, or a method, of which the backbone is looked at. `target` says what is explained: one from
    `visualizers.targets`, or any function from the model's outputs to (B,). Without one it is the top class of a
    classifier, and of a headless network the length of the embedding (see FeatureNorm). `layer` is a name as timm has
    it, or a part of the network; by default the last map of its `feature_info`.
    The model is left as it was, gradients included; frozen, half-precision, compiled and wrapped ones will do, and so
    will no_grad, inference_mode and autocast around the call. An image's map does not depend on the rest of the batch.
    """
    maps = raw_grad_cam(model, images, target, layer)
    return enlarged(maps, images.shape[-2:])


def raw_grad_cam(
    model: nn.Module,
    images: Tensor,
    target: Target | Callable[[Tensor], Tensor] | None = None,
    layer: str | nn.Module | None = None,
) -> Tensor:
    """The maps (B, h, w) on the layer's own grid, as eq. 1 and 2 have them: not negative, and of no set scale.

    ValueError for a target that does not depend on the layer.
    """
    model = unwrapped(model)
    network = network_of(model)
    place = find_layer(network, layer)
    target = default_target(network) if target is None else target
    check_trainable(network)
    with untouched(model), watched(place) as seen:
        batch = prepared(network, images)
        scores = target(target.outputs(model, batch) if isinstance(target, Target) else network(batch))
        check_scores(scores, len(batch))
        activation = reached(place, seen)
        gradient = torch.autograd.grad(scores.sum(), activation, allow_unused=True)[0] if scores.requires_grad else None
    if gradient is None:
        raise ValueError(
            f"the target does not depend on {place.name}: choose a layer before what it scores, or another target"
        )
    weights = wide(gradient).mean((2, 3), keepdim=True)  # eq. 1
    return (weights * wide(activation)).sum(1).relu()  # eq. 2


def check_trainable(network: nn.Module) -> None:
    """Refuse weights without a history to come, as those made under inference_mode: nothing can be derived by them."""
    if any(tensor.is_inference() for tensor in (*network.parameters(), *network.buffers())):
        raise ValueError(
            f"the {type(network).__name__} was made or loaded under torch.inference_mode, and has no gradients: "
            "make it outside; grad_cam itself may be called under inference_mode"
        )


def check_scores(scores: Tensor, images: int) -> None:
    """Refuse a target that does not give one number for each image."""
    if not isinstance(scores, Tensor) or scores.shape != (images,):
        found = tuple(scores.shape) if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
        raise ValueError(f"the target gives {found} for {images} images: give one number for each, ({images},)")
