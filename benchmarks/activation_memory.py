"""Count the memory of papers' recipes by the shapes of their tensors: python benchmarks/activation_memory.py

Nothing is computed: a step of 8 and of 16 images goes through the method as tensors that have shapes and no numbers
(torch's FakeTensorMode), under autocast to bf16, and what autograd keeps for the gradients is counted. The count grows
with the images; GB for 256 of them are given, with activations kept and computed anew (--grad_checkpointing), and the
images at once that by the rules of `ssl_backbones/train/step_memory.py` go into a GPU of 12, 24 and 80 GB.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from steps import Noise, given_for
from timing import circumstances, command, write
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ssl_backbones import recipes
from ssl_backbones.data.order import Order
from ssl_backbones.data.placement import mapped
from ssl_backbones.methods.method import Method
from ssl_backbones.models.activations import counted
from ssl_backbones.recipes.own import put
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.train.beginning import Beginning
from ssl_backbones.train.pretrain import build
from ssl_backbones.train.settle import OF_A_GPU
from ssl_backbones.train.step_memory import Footprint, memory_needed

RECIPES = (
    "resnet50_byol.in1k_200ep",
    "resnet50_lewel_b.in1k_400ep",
    "resnet50_moco_v2.in1k_200ep",
    "resnet50_lewel_m.in1k_200ep",
    "resnet50_simclr.in1k_200ep",
    "resnet50_simsiam.in1k_200ep",
    "resnet50_barlow_twins.in1k_1000ep",
    "resnet50_vicreg.in1k_1000ep",
    "resnet18_byol.imagenette96_100ep",
    "resnet18_lewel_b.imagenette96_100ep",
    "resnet18_moco_v2.imagenette96_100ep",
    "resnet18_lewel_m.imagenette96_100ep",
)
COUNTS = (8, 16)
MANY = 256
GPUS = (12, 24, 80)
"""GB of memory."""
CUDA = torch.device("cuda")


def shapes_of(method: Method) -> FakeTensorMode:
    """The mode in which a method can be called, all of whose tensors are exchanged for such as hold no numbers."""
    mode = FakeTensorMode()
    for module in method.modules():
        for name, weights in module._parameters.items():
            if weights is not None:
                fake = mode.from_tensor(weights.detach())
                module._parameters[name] = nn.Parameter(fake, weights.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = mode.from_tensor(buffer)
    return mode


def kept_by(recipe: Recipe, images: Noise) -> Iterator[tuple[Method, int]]:
    """The method and the bytes that autograd keeps for as many images as COUNTS says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few images make small groups
        method = build(Beginning(recipe, None)).train()
    dataset = method.dataset(images, recipe.size, 0)
    orders = [Order(len(images), count, 0) for count in COUNTS]
    contents = [dataset.on_device(dataset[next(order.requests(0))].content) for order in orders]
    mode = shapes_of(method)
    for content in contents:
        shown = mapped(mode.from_tensor, content)
        with mode, counted(method) as storages, torch.autocast("cpu", torch.bfloat16):
            method(shown)
        yield method, sum(storages.values())


def footprint_of(recipe: Recipe, images: Noise) -> tuple[float, Footprint]:
    """Bytes that autograd keeps of an image, and the footprint of a step on a GPU."""
    (method, small), (_, large) = kept_by(recipe, images)
    image = (large - small) / (COUNTS[1] - COUNTS[0])
    beside = small - COUNTS[0] * image
    fixed = memory_needed(method, beside, CUDA, recipe.optimizer.kind)
    whole = memory_needed(method, beside + image, CUDA, recipe.optimizer.kind)
    return image, Footprint(fixed, whole - fixed, "bf16")


def row_of(name: str, given: Mapping[str, str], images: Noise) -> dict[str, Any]:
    """GB of 256 images by a recipe, and the images at once that go into a GPU."""
    recipe = recipes.get(name)
    for field, value in given.items():
        if hasattr(recipe.method, field):
            recipe = put(recipe, f"method.{field}", value)
    row: dict[str, Any] = {"recipe": name, "model": recipe.model, "size": recipe.size}
    for anew in (False, True):
        image, found = footprint_of(replace(recipe, grad_checkpointing=anew), images)
        row["anew" if anew else "kept"] = {
            "gb_per_256_images": round(MANY * image / 1e9, 1),
            "gb_of_state": round(found.fixed / 1e9, 1),
            "images_at_once": {f"{gpu} GB": int((OF_A_GPU * gpu * 1e9 - found.fixed) / found.image) for gpu in GPUS},
        }
    return row


def main() -> None:
    """Count, print and write."""
    parser = command(__file__, __doc__, rounds=1)
    parser.add_argument("--recipes", nargs="+", choices=recipes.names(), default=list(RECIPES))
    options = parser.parse_args()
    results: dict[str, Any] = circumstances(("torch", "timm")) | {"precision": "bf16", "counted": []}
    images = Noise(64, 16)
    with given_for(images) as given:
        for name in options.recipes:
            results["counted"].append(row_of(name, given, images))
            print(results["counted"][-1], flush=True)
            write(results, options.out)


if __name__ == "__main__":
    main()
