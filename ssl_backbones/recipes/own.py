"""Recipes for one's own images: settings that follow from how many there are, from the network, and from the memory.

docs/own_rules.md gives the rules with their sources and what was measured. A recipe names the fields that it leaves to
the rules in `derived`; `settled` fills them in once the images and the machine are known. Any method gets such recipes
from a file that makes them by `own`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from ssl_backbones.methods.byol import BYOLConfig
from ssl_backbones.methods.lewel_b import LewelBConfig
from ssl_backbones.methods.lewel_m import LewelMConfig
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.methods.moco_v2 import MoCoV2Config
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.settings import OptimizerConfig, Promise, ScheduleConfig
from ssl_backbones.recipes.small_images import CONTRASTIVE, HEADS, PREDICTIVE
from ssl_backbones.registry.backbones import SMALL
from ssl_backbones.registry.names import Name

Part = TypeVar("Part")
TAG = "own"
DATA = "images of your own"
ARCHS = ("resnet8", "resnet18", "resnet34", "resnet50")

FEWEST = 32
"""Images below which nothing is learned that pretrained weights do not know better: two of the smallest batches."""
SHOWN = 600_000
"""Images to show in all: what the ResNet-8 that ship had seen when their k-NN curves were flat."""
EPOCHS = (100, 800)
"""Shortest and longest training in the papers' tables (LEWEL, Table 1; MoCo v2, Table 2)."""
SIDES = (224, 192, 160, 128, 96, 64)
"""Sides of a view for networks with a total stride of 32."""
SIDE_ON_CPU = 96
SMALL_SIDE = 32
"""Side of a view for the small networks, whose total stride is 4."""
BLUR_FROM = 96
"""Largest side at which views are made without blur."""
AT_ONCE = 32
"""Images that a view's side must leave room for at once."""
BYTES_OF_A_PIXEL = {"resnet8": 636, "resnet18": 447, "resnet34": 650, "resnet50": 1738}
"""Bytes kept for the backward pass, per pixel of a view that gradients flow through, in fp32; counted, see the docs."""
WEIGHTS = {"resnet8": 0.6e6, "resnet18": 16e6, "resnet34": 26e6, "resnet50": 60e6}
"""Numbers that are trained, heads included, at most."""
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


def settled(recipe: Recipe, facts: Facts) -> Recipe:
    """The recipe with all that it leaves to the rules; ValueError where images are too few or memory too small."""
    if recipe.derived and facts.images < FEWEST:
        raise ValueError(
            f"{facts.images} images are too few to learn from: {recipe.name} wants {FEWEST} at least, so add images or "
            "take a pretrained network as it is (ssl-backbones list --pretrained)"
        )
    for name, rule in RULES.items():
        if name in recipe.derived:
            recipe = put(recipe, name, rule(recipe, facts))
    if recipe.derived:
        require_memory(recipe, facts)
    return recipe


def put(part: Part, name: str, value: Any) -> Part:
    """A dataclass with another value at a dotted name."""
    field, _, below = name.partition(".")
    return replace(part, **{field: put(getattr(part, field), below, value) if below else value})  # type: ignore[type-var]


def side(recipe: Recipe, facts: Facts) -> int:
    """The largest usual side that the images have and that leaves room for a batch; on a CPU, what it can train."""
    arch = arch_of(recipe)
    if arch in SMALL:
        return SMALL_SIDE
    most = min(facts.side, SIDES[0] if facts.gpu else SIDE_ON_CPU)
    fitting = (side for side in SIDES if side <= most and fits(recipe, facts, AT_ONCE, side))
    return next(fitting, SIDES[-1])


def views(recipe: Recipe, facts: Facts) -> Any:
    """The method's views, without blur where they are small."""
    method: Any = recipe.method
    return tuple(replace(view, blur_p=0.0) if recipe.size <= BLUR_FROM else view for view in method.views)


def batch(recipe: Recipe, facts: Facts) -> int:
    """A power of two for each process: an eighth of the images at most, from 16 to 64, with negatives to 128.

    Of 50,000 images and more, 256. Where negatives are compared within the batch, no more than fits into memory.
    """
    negatives = has(recipe.method, "temperature")
    most = 256 if facts.images >= 50_000 else 128 if negatives else 64
    whole = max(16, min(most, facts.images // 8))
    share = power_of_two(max(2, whole // facts.processes))
    while negatives and share > 2 and not fits(recipe, facts, share, recipe.size):
        share //= 2
    return share * facts.processes


def accumulation(recipe: Recipe, facts: Facts) -> int:
    """The fewest parts of the batch that fit into memory, of two images or more for each process."""
    parts = 1
    share = recipe.batch_size // facts.processes
    while not fits(recipe, facts, share // parts, recipe.size) and share % (4 * parts) == 0:
        parts *= 2
    return parts


def epochs(recipe: Recipe, facts: Facts) -> int:
    """As many as show 600,000 images, within what the papers train."""
    shortest, longest = EPOCHS
    return max(shortest, min(longest, round(SHOWN / facts.images)))


def warmup(recipe: Recipe, facts: Facts) -> int:
    """A twentieth of the epochs."""
    return min(recipe.epochs - 1, max(1, round(recipe.epochs / 20)))


def queue(recipe: Recipe, facts: Facts) -> int:
    """The largest power of two that holds no key of a query's own image, up to MoCo's 65,536."""
    return power_of_two(max(1, min(65_536, facts.images - recipe.batch_size)))


def splits(recipe: Recipe, facts: Facts) -> int:
    """Groups of 16 images at least whose batch statistics are their own: two to MoCo's eight."""
    at_once = recipe.batch_size // recipe.parts
    return max(2, min(8, power_of_two(max(1, at_once // 16))))


def target_momentum(recipe: Recipe, facts: Facts) -> float:
    """Average over a 300th of the steps: over 20, as in this project's short runs, to 50, as in EMAN's."""
    return momentum_over(steps(recipe, facts) / 300, 20, 50)


def key_momentum(recipe: Recipe, facts: Facts) -> float:
    """Average over a 60th of the steps: over 100, as in this project's short runs, to MoCo's 1,000."""
    return momentum_over(steps(recipe, facts) / 60, 100, 1000)


def knn_every(recipe: Recipe, facts: Facts) -> int:
    """Twenty measurements in a run."""
    return max(1, recipe.epochs // 20)


RULES: dict[str, Callable[[Recipe, Facts], Any]] = {
    "size": side,
    "method.views": views,
    "batch_size": batch,
    "accumulation": accumulation,
    "epochs": epochs,
    "schedule.warmup_epochs": warmup,
    "method.queue_size": queue,
    "method.bn_splits": splits,
    "method.target_momentum": target_momentum,
    "method.momentum": key_momentum,
    "monitoring.knn_every": knn_every,
}
"""The rule of each field, in an order in which later ones see what earlier ones, or a person, decided."""


def power_of_two(most: int) -> int:
    """The largest power of two up to a number."""
    return 1 << (most.bit_length() - 1)


def momentum_over(steps: float, fewest: int, most: int) -> float:
    """The momentum of a moving average over so many steps."""
    return round(1 - 1 / max(fewest, min(most, steps)), 4)


def steps(recipe: Recipe, facts: Facts) -> int:
    """Optimiser steps of the run."""
    return recipe.epochs * max(1, facts.images // recipe.batch_size)


def arch_of(recipe: Recipe) -> str:
    """The network of the recipe."""
    return Name.parse(recipe.model).arch


def has(method: MethodConfig, choice: str) -> bool:
    """True for a method with a choice: queue_size, temperature (of negatives), key_bn (of keys without gradient)."""
    return choice in {field.name for field in fields(method)}


def bytes_needed(recipe: Recipe, facts: Facts, at_once: int, side: int) -> float:
    """Bytes that a step of `at_once` images of `side` px takes on a device, by the counts above."""
    arch = arch_of(recipe)
    pixels = [policy.side(side) ** 2 for policy in recipe.method.policies]
    flowing = side**2 if has(recipe.method, "key_bn") else max(2 * side**2, sum(pixels))
    kept = at_once * flowing * BYTES_OF_A_PIXEL[arch] * (HALF if facts.gpu else 1)
    return 16 * WEIGHTS[arch] + (GPU_ITSELF if facts.gpu else 0) + ALLOWANCE * kept


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
            f"{facts.memory / 1e9:.1f} GB may be filled: lower --size, raise --accumulation, or take a smaller network"
        )


def own(arch: str, method: MethodConfig, optimizer: OptimizerConfig, not_stated: str = "") -> Recipe:
    """The recipe of a network and a method for one's own images; all that has a rule is left to it.

    The values that it holds until then are those of a short run.
    """
    parts: dict[str, Any] = {"": Recipe, "method.": type(method), "schedule.": ScheduleConfig}
    known = {prefix + field.name for prefix, part in parts.items() for field in fields(part)}
    return Recipe(
        name=f"{arch}_{method.name}.{TAG}",
        model=f"{arch}_{method.name}",
        method=method,
        size=SMALL_SIDE if arch in SMALL else SIDE_ON_CPU,
        epochs=200,
        batch_size=64,
        optimizer=optimizer,
        schedule=ScheduleConfig(per="step"),
        derived=tuple(name for name in RULES if name in known or name.startswith("monitoring.")),
        promise=Promise(
            paper="Your own images (no paper)",
            table="rules of docs/own_rules.md",
            data=DATA,
            epochs=200,
            hardware="a CPU or a GPU",
            hours=None,
            result="what was measured stands in docs/own_rules.md",
            not_stated=not_stated,
        ),
    )


def heads(arch: str) -> dict[str, Any]:
    """The widths of the heads: this project's for small networks, the papers' for ResNet-50."""
    return {} if arch == "resnet50" else HEADS.get(arch, HEADS["resnet18"])


def aligned_heads(arch: str) -> dict[str, Any]:
    """The same with those of LEWEL's aligned branch."""
    found = heads(arch)
    return found | {"aligned_dim": found["projection_dim"]} if found else found


def predictive(arch: str) -> OptimizerConfig:
    """SGD as in this project's short runs; for ResNet-50, LARS as LEWEL trains it on ImageNet-100."""
    lars = OptimizerConfig("lars", 1.8, weight_decay=1e-6, exclude_norm_and_bias=True)
    return lars if arch == "resnet50" else PREDICTIVE


def contrastive(arch: str) -> OptimizerConfig:
    """SGD as in this project's short runs; for ResNet-50, as MoCo v2 is trained on ImageNet-100."""
    return OptimizerConfig("sgd", 0.06, weight_decay=1e-4) if arch == "resnet50" else CONTRASTIVE


def of_network(arch: str) -> tuple[Recipe, ...]:
    """The recipes of a network."""
    return (
        own(arch, BYOLConfig(**heads(arch), predictor_init="kaiming"), predictive(arch)),
        own(arch, LewelBConfig(**aligned_heads(arch)), predictive(arch)),
        own(arch, MoCoV2Config(**heads(arch)), contrastive(arch)),
        own(arch, LewelMConfig(**aligned_heads(arch)), contrastive(arch)),
    )


RECIPES = tuple(recipe for arch in ARCHS for recipe in of_network(arch))
