"""Recipes for one's own images: settings that follow from how many there are, from the network, and from the memory.

`rules.py` has the rules, docs/own_rules.md their sources and what was measured. A recipe names the fields that it
leaves to the rules in `derived`; `settled` fills them in once the images and the machine are known. Any method gets
such recipes from a file that makes them by `own`.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

from ssl_backbones.methods.byol import BYOLConfig
from ssl_backbones.methods.lewel_b import LewelBConfig
from ssl_backbones.methods.lewel_m import LewelMConfig
from ssl_backbones.methods.method import MethodConfig
from ssl_backbones.methods.moco_v2 import MoCoV2Config
from ssl_backbones.recipes.facts import Facts, require_memory
from ssl_backbones.recipes.named import named
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.rules import RULES, SIDE_ON_CPU, SMALL_SIDE
from ssl_backbones.recipes.settings import OptimizerConfig, ScheduleConfig
from ssl_backbones.recipes.small_images import CONTRASTIVE, HEADS, PREDICTIVE
from ssl_backbones.registry.backbones import SMALL

Part = TypeVar("Part")
TAG = "own"
DATA = "images of your own"
ARCHS = ("resnet8", "resnet18", "resnet34", "resnet50")

MEASURED = {"resnet8_byol", "resnet8_lewel_m", "resnet8_moco_v2"}
"""Networks and methods whose gain stands in docs/own_rules.md."""
FEWEST = 32
"""Images below which nothing is learned that pretrained weights do not know better: two of the smallest batches."""


def settled(recipe: Recipe, facts: Facts) -> Recipe:
    """The recipe with all that it leaves to the rules.

    ValueError where images are too few, memory too small, or where what a person set does not go with what the rules
    chose: without `derived`, all of a recipe is checked.
    """
    if recipe.derived and facts.images < FEWEST:
        raise ValueError(
            f"{facts.images} images are too few to learn from: {recipe.name} wants {FEWEST} at least, so add images or "
            "take a pretrained network as it is (ssl-backbones list --pretrained)"
        )
    for name, rule in RULES.items():
        if name in recipe.derived:
            recipe = put(recipe, name, rule(recipe, facts))
    if recipe.derived:
        replace(recipe, derived=())
        require_memory(recipe, facts)
    return recipe


def put(part: Part, name: str, value: Any) -> Part:
    """A dataclass with another value at a dotted name."""
    field, _, below = name.partition(".")
    return replace(part, **{field: put(getattr(part, field), below, value) if below else value})  # type: ignore[type-var]


def own(
    arch: str,
    method: MethodConfig,
    optimizer: OptimizerConfig,
    not_stated: str = "",
    fixed: tuple[str, ...] = (),
) -> Recipe:
    """The recipe of a network and a method for one's own images; all that has a rule is left to it, unless it is fixed.

    The values that it holds until then are those of a short run.
    """
    parts: dict[str, Any] = {"": Recipe, "method.": type(method), "schedule.": ScheduleConfig}
    known = {prefix + field.name for prefix, part in parts.items() for field in fields(part)}
    return named(
        arch,
        method,
        TAG,
        size=SMALL_SIDE if arch in SMALL else SIDE_ON_CPU,
        epochs=200,
        batch_size=64,
        optimizer=optimizer,
        schedule=ScheduleConfig(per="step"),
        derived=tuple(
            name for name in RULES if (name in known or name.startswith("monitoring.")) and name not in fixed
        ),
        paper="Your own images (no paper)",
        table="rules of docs/own_rules.md",
        data=DATA,
        hardware="a CPU or a GPU",
        result="measured in docs/own_rules.md" if f"{arch}_{method.name}" in MEASURED else "not measured",
        not_stated=not_stated,
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
