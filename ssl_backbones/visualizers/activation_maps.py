"""Maps that ask for no gradient and no target: how much a layer answers at each place, and along what."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_backbones.visualizers.inspection import activations, enlarged


def feature_norm(model: nn.Module, images: Tensor, layer: str | nn.Module | None = None) -> Tensor:
    """The length of the layer's vector at each place: maps (B, H, W) in [0, 1] of normalised images (B, 3, H, W)."""
    features = activations(model, images, layer)
    return enlarged(torch.linalg.vector_norm(features, dim=1), images.shape[-2:])


def principal_component(model: nn.Module, images: Tensor, layer: str | nn.Module | None = None) -> Tensor:
    """The first principal component of the layer within an image: maps (B, H, W) in [0, 1] of images (B, 3, H, W).

    Each image's vectors, less their mean, projected on their first principal direction (Eigen-CAM, Muhammad and
    Yeasin, 2020, https://arxiv.org/abs/2008.00299, which takes no mean off and so shows little but length). The sign is
    the one in which longer vectors lie higher, and what is below the mean is 0.
    """
    features = activations(model, images, layer)
    finite = features.isfinite().flatten(1).all(1)[:, None, None]
    features = torch.where(finite[..., None], features, 0.0)  # there is no decomposition of other numbers
    vectors = features.flatten(2).transpose(1, 2)  # (B, P, C)
    centred = vectors - vectors.mean(1, keepdim=True)
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[:, 0]  # (B, C)
    along = torch.einsum("bpc,bc->bp", centred, directions)
    lengths = torch.linalg.vector_norm(vectors, dim=2)
    agreement = (along * (lengths - lengths.mean(1, keepdim=True))).sum(1, keepdim=True)
    maps = torch.where(agreement < 0, -along, along).view(-1, *features.shape[2:])
    return enlarged(torch.where(finite, maps, torch.nan), images.shape[-2:])
