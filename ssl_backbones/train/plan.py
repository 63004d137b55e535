"""Advice on what to train: a few recipes for one's own images, each with what it costs on this machine."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.models import get_pretrained_cfg

from ssl_backbones import recipes
from ssl_backbones.catalogue.description import Description
from ssl_backbones.catalogue.lookup import describe, list_models
from ssl_backbones.data import Images
from ssl_backbones.distributed import say
from ssl_backbones.invocation import NAME
from ssl_backbones.models.teacher_branch import TeacherConfig
from ssl_backbones.recipes.facts import Facts, arch_of, bytes_needed
from ssl_backbones.recipes.own import settled
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.refusal import Refusal
from ssl_backbones.registry.licences import is_non_commercial
from ssl_backbones.train.cost import gigabytes
from ssl_backbones.train.forecast import Forecast, forecast
from ssl_backbones.train.guards import MemoryShortError
from ssl_backbones.train.settle import OF_A_GPU, facts_of, fillable_memory

WHY = {
    "resnet50": "the strongest features, 2,048 of them, and the most work",
    "resnet18": "512 features at less than half of the work of a ResNet-50",
    "resnet8": "64 features of images at 32 px: a first look, to see that all works",
}
"""Networks to choose from, and why."""
ON_A_CPU = ("resnet18", "resnet8")
FEW = 3000
"""Images below which MoCo v2 is advised: with ResNet-8 it gained more on 300 (docs/own_rules.md). On 9,469 it is ahead
in six CPU minutes and BYOL after 60 epochs, which cost it half as much again; BYOL needs no queue."""
TAUGHT_BELOW = 20_000
"""Images below which a teacher is advised first: on 7,768 and 9,469 distillation was far ahead of training from scratch
at equal cost (benchmarks/README.md), and no larger set was tried."""
ON_IMAGES = ("data", "labels", "cache", "reencode")
"""Fields of a recipe that tell which images it has and how it reads them: the same in every run to choose from."""
LEAST = 0.1
"""Share of the epochs that the rules give, below which a run is not worth its start."""
MARGIN = 1.1
"""Measurements and checkpoints take a tenth of the time besides, at most."""


class PlanError(Refusal, ValueError):
    """Images, a machine or a time for which there is nothing to advise."""


@dataclass(frozen=True)
class Choice:
    """A run to choose, its cost, and why."""

    recipe: Recipe
    cost: Forecast
    why: str
    start: str
    """Weights to begin with instead, in words; empty where none are at hand."""
    elsewhere: float
    """Bytes on the GPU that the run is planned for and that is not here; 0 where it is planned for this machine."""

    @property
    def command(self) -> str:
        """The words that start it, with every value that the forecast is of."""
        recipe = self.recipe
        queue = queue_of(recipe)
        said = {name: getattr(recipe, name) for name in ("size", "batch_size", "accumulation")}
        said |= {"method.queue_size": queue} if queue else {}
        said |= {"epochs": recipe.epochs}
        return " ".join([NAME, "pretrain", recipe.name, *words_on_images(recipe), *as_options(said)])

    def sentences(self) -> list[str]:
        """The reason, the settings, the cost and the start, a sentence each."""
        recipe, cost = self.recipe, self.cost
        queue = queue_of(recipe)
        settings = [
            f"{recipe.method.paper.label} on {arch_of(recipe)} at {recipe.size} px",
            f"batch {recipe.batch_size}" + (f" in {recipe.parts} parts" if recipe.parts > 1 else ""),
            *([f"queue {queue}"] if queue else []),
            f"{recipe.epochs} epochs",
            f"learning rate {recipe.peak_lr:g}",
        ]
        found = [
            f"Why: {self.why}.",
            f"What: {', '.join(settings)}.",
            f"Cost{' on this machine instead' if self.elsewhere else ''}: {cost}.",
        ]
        if self.elsewhere:
            found += [
                f"On the GPU: about {gigabytes(self.elsewhere)} of its memory by the rules; its hours cannot be timed "
                "from here: the same command with --dry_run tells them there."
            ]
        return found + ([self.start] if self.start else [])


def plan(
    images: Images, said: Mapping[str, Any], device: torch.device, gpu_memory: float = 0.0, hours: float = 0.0
) -> list[Choice]:
    """Two or three runs to choose from, the strongest first; PlanError where images, memory or hours allow none.

    `said` are those of `ON_IMAGES` by name. `gpu_memory`, in GB, is that of a GPU that is meant instead of this
    machine's; `hours` is what a run may take.
    """
    facts = facts_of(images, device, fillable_memory(device))
    if gpu_memory:
        facts = replace(facts, memory=OF_A_GPU * gpu_memory * 1e9, gpu=True)
    found, refusals = [], []
    method = "moco_v2" if len(images) < FEW else "byol"
    for arch in WHY if facts.gpu else ON_A_CPU:
        name = f"{arch}_{method}.own"
        try:
            found.append(chosen(replace(recipes.get(name), **said), images, facts, device, hours))
        except (ValueError, MemoryShortError) as error:
            refusals.append(f"{name} is left out: {error}")
    if not found:
        raise PlanError(refusals[-1].partition(": ")[2])
    for refusal in refusals:
        say(refusal)
    return found


def chosen(named: Recipe, images: Images, facts: Facts, device: torch.device, hours: float) -> Choice:
    """A recipe with its cost, shortened to the hours; ValueError where memory or hours are too few for it."""
    recipe = settled(named, facts)
    cost = forecast(recipe, images, device)
    elsewhere = facts.gpu and device.type != "cuda"
    if hours and not elsewhere and MARGIN * cost.hours > hours:
        epochs = epochs_within(hours, recipe, cost)
        derived = tuple(name for name in named.derived if name != "epochs")
        recipe = settled(replace(named, epochs=epochs, derived=derived), facts)
        cost = replace(cost, steps=epochs * cost.steps_per_epoch)
    at_once = recipe.batch_size // recipe.parts
    memory = bytes_needed(recipe, facts, at_once, recipe.size) if elsewhere else 0.0
    return Choice(recipe, cost, WHY[arch_of(recipe)], start_of(arch_of(recipe), recipe.optimizer.lr), memory)


def words_on_images(recipe: Recipe) -> list[str]:
    """The options of `ON_IMAGES` that a recipe does not have by its name alone."""
    usual, said = recipes.get(recipe.name), {name: getattr(recipe, name) for name in ON_IMAGES}
    return as_options({name: value for name, value in said.items() if value != getattr(usual, name)})


def as_options(said: Mapping[str, Any]) -> list[str]:
    """Values as a shell takes them, each behind its option."""
    return [word for name, value in said.items() for word in (f"--{name}", shlex.quote(str(value)))]


def queue_of(recipe: Recipe) -> int:
    """The keys in the method's queue; 0 for a method without one, or that does not look at it."""
    return int(getattr(recipe.method, "queue_size", 0)) if recipe.method.compares_images else 0


def epochs_within(hours: float, recipe: Recipe, cost: Forecast) -> int:
    """The epochs that the hours allow; ValueError below a tenth of those that the rules give."""
    an_epoch = MARGIN * cost.hours / recipe.epochs
    fewest = max(2, round(LEAST * recipe.epochs))
    if hours < fewest * an_epoch:
        raise ValueError(
            f"--hours is {hours:g}, and {fewest} epochs, a tenth of what so many images want, take "
            f"{fewest * an_epoch:.2g} hours with {recipe.name} on this machine: allow as many"
        )
    return int(hours / an_epoch)


def from_teacher(other: Recipe, images: Images) -> str:
    """Words for learning from a larger network instead, and the command that tells its cost, at their end."""
    words = [*words_on_images(other), *(["--method.kept", "features"] if images.place is None else [])]
    return (
        f"what a larger network knows of your images ({TeacherConfig.teacher}, fetched from the Hub). This tells the "
        f"cost, and without --dry_run it trains: {NAME} pretrain {arch_of(other)}_distilled.own "
        f"{' '.join(words)} --dry_run"
    )


def start_of(arch: str, lr: float) -> str:
    """The sentence on the best published weights of a network that allow commercial use, or else on timm's own.

    A third of the rate `lr` is advised with them, as at all of it what they know is often lost (docs/own_images.md).
    """
    known = [describe(name) for name in list_models(f"{arch}_*", pretrained=True)]
    free = [model for model in known if not model.non_commercial and figure_of(model)]
    if not free:
        return of_timm(arch, lr)
    best = max(free, key=figure_of)
    images = f", from images for {best.data_terms}" if best.data_terms else ""
    return begun(best.name, lr, f"published weights ({best.licence}{images})")


def of_timm(arch: str, lr: float) -> str:
    """The sentence on timm's own weights of a network, which learnt with labels; empty where none are free to use."""
    cfg = get_pretrained_cfg(arch)
    if cfg is None or not cfg.tag or not cfg.license or is_non_commercial(cfg.license):
        return ""
    return begun(f"{arch}.{cfg.tag}", lr, f"timm's weights ({cfg.license}, trained with labels)")


def begun(name: str, lr: float, weights: str) -> str:
    """The sentence on options that begin with some weights, at a third of a rate."""
    return f"Start: --init {name} --optimizer.lr {lr / 3:.2g} begins with {weights} instead of random ones."


def figure_of(model: Description) -> float:
    """The accuracy by linear evaluation of published weights, in %: ours, or else their publisher's."""
    return model.our_number or (model.origin.number if model.origin else None) or 0.0
