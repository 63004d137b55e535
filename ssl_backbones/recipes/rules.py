"""The rules by which settings follow from one's own images, the network and the memory, a function for each field.

docs/own_rules.md gives them with their sources and what was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ssl_backbones.recipes.facts import Facts, arch_of, fits, has
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.registry.backbones import SMALL

SHOWN = 600_000
"""Images to show in all: as many as the ResNet-8 that ship have seen."""
EPOCHS = (100, 800)
"""Shortest and longest training in the papers' tables (LEWEL, Table 1; MoCo v2, Table 2)."""
SIDES = (224, 192, 160, 128, 96, 64)
"""Sides of a view for networks with a total stride of 32."""
SIDE_ON_CPU = 96
SMALL_SIDE = 32
"""Side of a view for the small networks, whose total stride is 4."""
BLUR_FROM = 96
"""Largest side at which views are made without blur."""
CROPS_FROM = 160
"""Smallest side of views that have small crops beside them, for networks with a total stride of 32."""
SHARES = 50, 25, 10
"""Images to a prototype of three clusterings; PCL's have 51, 26 and 13 on ImageNet."""
PROTOTYPES = 25_000, 50_000, 100_000
"""PCL's."""
AT_ONCE = 32
"""Images that a view's side must leave room for at once."""


def side(recipe: Recipe, facts: Facts) -> int:
    """The largest usual side that the images have and that leaves room for a batch; on a CPU, what it can train."""
    arch = arch_of(recipe)
    if arch in SMALL:
        return SMALL_SIDE
    most = min(facts.side, SIDES[0] if facts.gpu else SIDE_ON_CPU)
    fitting = (side for side in SIDES if side <= most and fits(recipe, facts, AT_ONCE, side))
    return next(fitting, SIDES[-1])


def views(recipe: Recipe, facts: Facts) -> Any:
    """The views that go with the method's choices, without blur where they are small; a start's interpolation stays."""
    method: Any = recipe.method
    change = {"blur_p": 0.0} if recipe.size <= BLUR_FROM else {}
    usual = zip(method.usual_views, method.views, strict=True)
    return tuple(replace(view, interpolation=there.interpolation, **change) for view, there in usual)


def crop(recipe: Recipe, facts: Facts) -> Any:
    """The method's small crops, likewise."""
    method: Any = recipe.method
    return replace(method.crop, blur_p=0.0) if recipe.size <= BLUR_FROM else method.crop


def crops(recipe: Recipe, facts: Facts) -> int:
    """As many small crops as the method has; none of views so small that a map of theirs has a single position."""
    method: Any = recipe.method
    return method.crops if recipe.size >= CROPS_FROM or arch_of(recipe) in SMALL else 0


def batch(recipe: Recipe, facts: Facts) -> int:
    """A power of two for each process: an eighth of the images at most, from 16 to 64, with negatives to 128.

    Of 50,000 images and more, 256. Where negatives are compared within the batch, no more than fits into memory.
    """
    negatives = recipe.method.compares_images
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


def prototypes(recipe: Recipe, facts: Facts) -> int:
    """One for twenty images, from 16 to SwAV's 3,000."""
    return max(16, min(3000, facts.images // 20))


def frozen(recipe: Recipe, facts: Facts) -> int:
    """An epoch."""
    return facts.images // recipe.batch_size


def queue(recipe: Recipe, facts: Facts) -> int:
    """The largest power of two below the images of an epoch less a batch, up to MoCo's 65,536.

    Beside prototypes, whole batches: up to two embeddings for each of them.
    """
    if has(recipe.method, "prototypes"):
        held = int(recipe.method.prototypes)  # type: ignore[attr-defined]
        most = max(0, min(2 * held, facts.images - recipe.batch_size))
        return most // recipe.batch_size * recipe.batch_size
    return power_of_two(max(1, min(65_536, facts.images - recipe.batch_size)))


def queue_after(recipe: Recipe, facts: Facts) -> float:
    """A twentieth of the run, in which embeddings still move fast."""
    return 0.05


def granularities(recipe: Recipe, facts: Facts) -> tuple[int, ...]:
    """One prototype for 50, for 25 and for 10 images, up to PCL's numbers, and two at least."""
    return tuple(max(2, min(most, facts.images // share)) for share, most in zip(SHARES, PROTOTYPES, strict=True))


def instance_epochs(recipe: Recipe, facts: Facts) -> int:
    """A tenth, as PCL has it."""
    return max(1, recipe.epochs // 10)


def noise(recipe: Recipe, facts: Facts) -> int:
    """None where each image can be told from all others at once, up to 100,000; the paper's 4,096 above."""
    return 0 if facts.images <= 100_000 else 4096


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
    "method.crop": crop,
    "method.crops": crops,
    "batch_size": batch,
    "accumulation": accumulation,
    "epochs": epochs,
    "schedule.warmup_epochs": warmup,
    "method.prototypes": prototypes,
    "method.frozen_steps": frozen,
    "method.queue_size": queue,
    "method.queue_after": queue_after,
    "method.noise": noise,
    "method.granularities": granularities,
    "method.instance_epochs": instance_epochs,
    "method.bn_splits": splits,
    "method.target_momentum": target_momentum,
    "method.momentum": key_momentum,
    "monitoring.knn_every": knn_every,
}
"""The rule of each field, in an order in which later ones see what earlier ones, or a person, decided."""
OF_LENGTH = frozenset(
    {"epochs", "max_steps", "schedule.warmup_epochs", "method.instance_epochs", "method.frozen_steps"}
    | {"method.target_momentum", "method.momentum"}
)
"""The length of a run, and the fields whose rules follow from it."""


def power_of_two(most: int) -> int:
    """The largest power of two up to a number."""
    return 1 << (most.bit_length() - 1)


def momentum_over(steps: float, fewest: int, most: int) -> float:
    """The momentum of a moving average over so many steps."""
    return round(1 - 1 / max(fewest, min(most, steps)), 4)


def steps(recipe: Recipe, facts: Facts) -> int:
    """Optimiser steps of the run."""
    return recipe.epochs * max(1, facts.images // recipe.batch_size)
