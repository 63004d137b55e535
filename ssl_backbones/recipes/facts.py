"""The memory that a step of a recipe takes, counted, and the facts that recipes for one's own images follow from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache

import timm
import torch

from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.models.activations import SIDE, bytes_of_a_pixel
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.refusal import reason
from ssl_backbones.registry.names import Name

COUNTED = {"resnet8": (636, 0.6e6), "resnet18": (447, 16e6), "resnet34": (650, 26e6), "resnet50": (1738, 60e6)}
"""Bytes kept for the backward pass, per pixel of a view that gradients flow through, in fp32, and the numbers that are
trained, heads included, at most."""
HEADS = 36e6
"""Trained numbers of the heads of another network, about those of a ResNet-50."""
HALF = 0.53
"""Share of that which half precision keeps, counted likewise."""
ALLOWANCE = 1.5
"""For heads, gradients of activations and an allocator's gaps; an allowance, not measured on a GPU."""
GPU_ITSELF = 0.5e9
"""Bytes that CUDA, its libraries and their workspaces take."""


@dataclass(frozen=True)
class Facts:
    """Facts of the images and the machine that the rules use."""

    images: int
    side: int
    """Shorter side of the images in pixels, the median of a sample."""
    memory: float
    """Bytes that each process may fill on its device."""
    gpu: bool = False
    """True if a GPU computes, in half precision."""
    processes: int = 1


def arch_of(recipe: Recipe) -> str:
    """The network's own name: resnet50 of resnet50_lewel_b."""
    return Name.parse(recipe.model).arch


def has(method: MethodConfig, choice: str) -> bool:
    """True for a method with a choice, such as queue_size, or key_bn (of keys without gradient)."""
    return choice in {field.name for field in fields(method)}


@cache
def counts_of(arch: str, output_stride: int = 0) -> tuple[float, float]:
    """Bytes kept for a pixel and trained numbers, as above; of a network that is not there, counted without computing.

    ValueError for one that has no feature maps, or takes no small images.
    """
    if arch in COUNTED and not output_stride:
        return COUNTED[arch]
    stride = {"output_stride": output_stride} if output_stride else {}
    try:
        with torch.device("meta"):
            backbone = timm.create_model(arch, num_classes=0, **stride)
        return bytes_of_a_pixel(backbone), HEADS + sum(weight.numel() for weight in backbone.parameters())
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"the memory of {arch} is counted on images of {SIDE} px, which it does not take ({reason(error)}): take a "
            "convolutional network, such as a ResNet, or a recipe that does not end in .own"
        ) from error


def bytes_needed(recipe: Recipe, facts: Facts, at_once: int, side: int) -> float:
    """Bytes that a step of `at_once` images of `side` px takes on a device, by the counts above."""
    of_a_pixel, trained = counts_of(arch_of(recipe), recipe.output_stride)
    pixels = [policy.side(side) ** 2 for policy in recipe.method.policies]
    flowing = side**2 if has(recipe.method, "key_bn") else sum(pixels) or 2 * side**2
    kept = at_once * flowing * of_a_pixel * (HALF if facts.gpu else 1)
    return 16 * trained + (GPU_ITSELF if facts.gpu else 0) + ALLOWANCE * kept


def fits(recipe: Recipe, facts: Facts, at_once: int, side: int) -> bool:
    """True if a step of `at_once` images of `side` px fits into a process's memory."""
    return bytes_needed(recipe, facts, at_once, side) <= facts.memory


def require_memory(recipe: Recipe, facts: Facts) -> None:
    """ValueError where even the smallest part of the batch does not fit into memory."""
    at_once = recipe.batch_size // (recipe.parts * facts.processes)
    needed = bytes_needed(recipe, facts, at_once, recipe.size)
    if needed > facts.memory:
        raise ValueError(
            f"{at_once} images of {recipe.size} px at a time take about {needed / 1e9:.1f} GB with {recipe.model}, and "
            f"{facts.memory / 1e9:.1f} GB may be filled: lower --size or --batch_size, or take a smaller network"
        )
