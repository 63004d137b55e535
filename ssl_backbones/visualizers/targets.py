"""Targets of maps: one number of each image, whose gradient says which places it is owed to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from ssl_backbones.visualizers.alignment import require_alignment_maps
from ssl_backbones.visualizers.inspection import network_of, prepared, untouched, unwrapped, wide


@runtime_checkable
class HasLogits(Protocol):
    """A method whose own head tells classes apart, such as the turns of an image."""

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, 3, H, W)."""


class Target(ABC):
    """One number (B,) of a model's outputs for images. Subclasses are final."""

    def outputs(self, model: nn.Module, images: Tensor) -> Tensor:
        """The embedding (B, D) of images (B, 3, H, W) that is scored, by the model or a method's backbone."""
        return embedding(model, images)

    @abstractmethod
    def __call__(self, outputs: Tensor) -> Tensor:
        """The scores (B,) of outputs (B, D), each of its own image alone."""


@dataclass(frozen=True)
class ClassLogit(Target):
    """The logit of a class, one for all images or one for each; for a model with a classifier."""

    index: int | tuple[int, ...]
    """The class."""

    def outputs(self, model: nn.Module, images: Tensor) -> Tensor:
        """The logits (B, K); ValueError for a model without classes, whose outputs are none."""
        network = network_of(model)
        if not has_classes(network):
            raise ValueError(
                f"this {type(network).__name__} has no head, and its {getattr(network, 'num_features', 'D')} outputs "
                "are no classes: take FeatureNorm(), Direction(vector) or CosineTo(embedding), or make the model with "
                "num_classes"
            )
        return embedding(model, images)

    def __call__(self, outputs: Tensor) -> Tensor:
        return picked(outputs, self.index, "class")


@dataclass(frozen=True)
class TopClass(Target):
    """The highest logit of each image; for a model with a classifier."""

    def __call__(self, outputs: Tensor) -> Tensor:
        return outputs.amax(1)


@dataclass(frozen=True)
class PretextLogit(Target):
    """A logit of a method's own head, one for all images or one for each: of eight turns in Patch RotNet."""

    index: int | tuple[int, ...]
    """The number of the logit."""

    def outputs(self, model: nn.Module, images: Tensor) -> Tensor:
        """The logits (B, K); TypeError for a method that tells no classes apart."""
        if not isinstance(model, HasLogits):
            raise TypeError(
                f"{type(model).__name__} has no logits of its own; RotNet, PatchRotNet, DeepCluster and Supervised do, "
                "and FeatureNorm() suits any model"
            )
        logits: Tensor = model.logits(images)
        return logits

    def __call__(self, outputs: Tensor) -> Tensor:
        return picked(outputs, self.index, "logit")


@dataclass(frozen=True, eq=False)
class CosineTo(Target):
    """The cosine to an embedding (D,), or to one for each image (B, D); `similar_to` takes it from images.

    Not to the image's own embedding: there the cosine is at its top and has no gradient. FeatureNorm() is that case.
    """

    embedding: Tensor

    def __call__(self, outputs: Tensor) -> Tensor:
        return cosine_similarity(outputs, fitting(self.embedding, outputs, "embedding"), dim=1)


@dataclass(frozen=True)
class FeatureNorm(Target):
    """The length of the embedding: the map shows how alike each place is to the whole image.

    For the gradient of the length is the embedding's own direction.
    """

    def __call__(self, outputs: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(outputs, dim=1)
        return norm


@dataclass(frozen=True, eq=False)
class Direction(Target):
    """The projection of the embedding on a vector (D,), or on one for each image (B, D), of any length."""

    vector: Tensor

    def __call__(self, outputs: Tensor) -> Tensor:
        return (outputs * normalize(fitting(self.vector, outputs, "vector"), dim=-1)).sum(1)


@dataclass(frozen=True)
class AlignmentPeak(Target):
    """The highest value of a method's alignment map; its sum would always be one."""

    index: int
    """The number of the map."""

    def outputs(self, model: nn.Module, images: Tensor) -> Tensor:
        """The highest values (B, n) of the maps; TypeError for a method without."""
        return require_alignment_maps(model).alignment_maps(images).amax((2, 3))

    def __call__(self, outputs: Tensor) -> Tensor:
        return picked(outputs, self.index, "map")


@dataclass(frozen=True, eq=False)
class Cluster(Target):
    """The margin of an image's cluster: the cosine to its centroid, less that to the next best one.

    Centroids are (K, D); without an index, the cluster is the nearest of each image.
    """

    centroids: Tensor
    """(K, D)."""
    index: int | None = None
    """The number of the cluster."""

    def __call__(self, outputs: Tensor) -> Tensor:
        """Project embeddings (B, D); ValueError for centroids of another width."""
        if self.centroids.ndim != 2:
            raise ValueError(f"centroids are {tuple(self.centroids.shape)}: give (K, {outputs.shape[1]})")
        centroids = fitting(self.centroids, outputs, "centroids", rows=len(self.centroids))
        cosines = normalize(outputs, dim=1) @ normalize(centroids, dim=1).T
        own = cosines.argmax(1) if self.index is None else columns(cosines, self.index, "cluster")
        score = cosines.gather(1, own[:, None])[:, 0]
        rivals = cosines.scatter(1, own[:, None], -torch.inf).amax(1)
        return score if len(centroids) == 1 else score - rivals


def similar_to(model: nn.Module, images: Tensor) -> CosineTo:
    """The cosine to the embedding of other images: one (1, 3, H, W) for all, or another view of each (B, 3, H, W)."""
    model = unwrapped(model)
    network = network_of(model)
    with untouched(network), torch.no_grad():
        found = wide(embedding(model, prepared(network, images)))
    return CosineTo(found[0] if len(found) == 1 else found)


def default_target(network: nn.Module) -> Target:
    """The default target: the top class of a classifier, the length of a headless embedding."""
    return TopClass() if has_classes(network) else FeatureNorm()


def has_classes(network: nn.Module) -> bool:
    """True if a model's outputs are logits, as timm's models say; others are judged by their last module."""
    classes = getattr(network, "num_classes", None)
    return bool(classes) if classes is not None else isinstance(last_leaf(network), nn.Linear)


def last_leaf(network: nn.Module) -> nn.Module:
    """The part without parts that was added last."""
    return [module for module in network.modules() if not any(module.children())][-1]


def embedding(model: nn.Module, images: Tensor) -> Tensor:
    """The outputs (B, D) of a network for images (B, 3, H, W); ValueError for maps or lists of them."""
    network = network_of(model)
    outputs: Tensor = network(images)
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        found = tuple(outputs.shape) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise ValueError(
            f"a {type(network).__name__} gives {found}, where an embedding is (B, D): make the model with its pooling, "
            "without features_only"
        )
    return outputs


def picked(outputs: Tensor, index: int | tuple[int, ...], name: str) -> Tensor:
    """One column of outputs (B, K) for all rows, or one for each, as (B,); ValueError out of range."""
    return outputs.gather(1, columns(outputs, index, name)[:, None])[:, 0]


def columns(outputs: Tensor, index: int | tuple[int, ...], name: str) -> Tensor:
    """The column (B,) that is asked for of each row of outputs (B, K)."""
    indices = (index,) if isinstance(index, int) else index
    if len(indices) not in (1, len(outputs)):
        raise ValueError(f"{len(indices)} {name} indices are given for {len(outputs)} images: give one, or one each")
    for one in indices:
        if not 0 <= one < outputs.shape[1]:
            raise ValueError(
                f"{name} index {one} is out of range: there are {outputs.shape[1]}, so give 0 to {outputs.shape[1] - 1}"
            )
    return torch.tensor(indices, device=outputs.device).expand(len(outputs))


def fitting(reference: Tensor, outputs: Tensor, name: str, rows: int | None = None) -> Tensor:
    """A reference (D,) or (B, D) beside outputs (B, D), of their type; ValueError for another width."""
    width, rows = outputs.shape[1], len(outputs) if rows is None else rows
    if tuple(reference.shape) not in ((width,), (1, width), (rows, width)):
        raise ValueError(f"{name} is {tuple(reference.shape)}: give ({width},), or ({rows}, {width}), one for each")
    return reference.detach().clone().to(outputs)  # a copy: one made in inference mode cannot be derived by
