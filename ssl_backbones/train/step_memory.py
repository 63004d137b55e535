"""The memory of a step, tried on small parts of a batch; and the batch in as few parts as fit."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from ssl_backbones.data import Images
from ssl_backbones.data.placement import in_layout, laid_out
from ssl_backbones.distributed import doing, first_decides, gather_objects, say, world_size
from ssl_backbones.methods.method import Method
from ssl_backbones.models.activations import counted
from ssl_backbones.models.batch_norm import groups_of
from ssl_backbones.recipes.facts import ALLOWANCE, GPU_ITSELF
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.ways_out import take_own
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.cost import checkpoint_size, gigabytes, kept_by, learning, size_of_state
from ssl_backbones.train.guards import saying_if_memory_runs_out
from ssl_backbones.train.optimization import build_optimizer
from ssl_backbones.train.parts import earlier, followed, parts_to_keep
from ssl_backbones.train.precision import available, loss_of, passes
from ssl_backbones.train.prepare import fitting, read_batch
from ssl_backbones.train.settle import fillable_memory

FEW = 8
"""Images of the smaller part that is tried, where the batch has as many; the other has twice as many."""
SURE = 10_000
"""Bytes of a pixel of a view, several times those of a ResNet-50 in fp32: where so many would fit, nothing is tried."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that a step takes on a device."""

    fixed: float
    """However many images: state, gradients, what the optimiser keeps, and what the device's libraries take; without
    what lay there before."""
    image: float
    """Bytes for each further image."""
    precision: str

    def of(self, images: int) -> float:
        """Bytes of a step of so many images."""
        return self.fixed + images * self.image


def fitted(recipe: Recipe, method: Method, images: Images, device: torch.device) -> Recipe:
    """The recipe with the parts that its batch is scored in, alike in all processes: as few as fit, unless it says.

    All processes call it together. UnfitError where not even the smallest part fits, MemoryShortError where that shows
    in the trial.
    """
    if recipe.accumulation:
        return recipe
    share, limit = recipe.batch_size // world_size(), fillable_memory(device)
    before = first_decides(lambda: earlier(RunFolder(recipe.folder)))
    kept = parts_to_keep(method, before)
    if share * recipe.size**2 * SURE <= limit:
        parts = possible_parts(share, fewest(method), kept)[0]
    else:
        everywhere = gather_objects(footprint(recipe, method, images, device))
        found = max(everywhere, key=lambda one: one.of(share))
        with fitting():
            parts = parts_within(recipe, found, limit, fewest(method), kept)
        say(told(recipe, found, limit, parts))
        if parts > 1 and not method.accumulation_is_exact:
            say(instead(recipe))
    if before is not None and before.moved:
        say(followed(recipe.batch_size, before, parts))
    return replace(recipe, accumulation=parts)


def footprint(recipe: Recipe, method: Method, images: Images, device: torch.device) -> Footprint:
    """The memory of a step, from a small part of the batch and a larger one, or from a share that cannot be cut.

    Whatever grows faster than the images, as the comparison of each with all others, is taken to grow like them.
    MemoryShortError where a part does not fit, UnfitError where it cannot be scored.
    """
    counts = tried(recipe.batch_size // world_size(), fewest(method))
    precision = available(device)[0] if recipe.precision == "auto" else recipe.precision
    held = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0  # resident images: not free as it is
    with doing(f"Trying {' and '.join(map(str, counts))} images, to estimate the memory of a batch", at_once=True):
        found = []
        for count in counts:
            with fitting(), saying_if_memory_runs_out(too_much(recipe, precision, count)):
                found.append(taken(part(recipe, count), method, images, device, precision) - held)
    if len(counts) == 1:
        return Footprint(found[0], 0.0, precision)
    image = (found[1] - found[0]) / (counts[1] - counts[0])
    return Footprint(found[0] - counts[0] * image, image, precision)


def tried(share: int, least: int) -> tuple[int, ...]:
    """The images to try of a process's share, a few and more; all of a share that cannot be cut into parts of `least`.

    The data have as many, as they have those of a batch.
    """
    few = max(FEW, least)
    large = min(2 * few, share)
    small = max(least, min(few, large // 2))
    return (small, large) if small < large else (share,)


def fewest(method: Method) -> int:
    """The fewest images that can be scored together: two for each group whose batch statistics are its own."""
    return 2 * groups_of(method)


def part(recipe: Recipe, count: int) -> Recipe:
    """The recipe with so many images in each process, all at once."""
    return replace(recipe, batch_size=count * world_size(), accumulation=1)


def taken(recipe: Recipe, method: Method, images: Images, device: torch.device, precision: str) -> float:
    """Bytes of a step of a copy of the method: on a GPU as torch measures them, beside what lies there already; else
    as autograd's are counted."""
    content, _ = read_batch(recipe, method, images, device)
    layout = "channels_last" if recipe.layout == "auto" else recipe.layout
    content = in_layout(content, layout)
    trial = laid_out(copy.deepcopy(method).to(device).train(), layout)
    if device.type != "cuda":
        with counted(trial) as storages:
            loss_of(trial, content, precision, device)
        return memory_needed(trial, sum(storages.values()), device, recipe.optimizer.kind)
    optimizer = build_optimizer(trial, recipe)
    for _ in range(2):  # the optimiser keeps nothing before its first step
        torch.cuda.reset_peak_memory_stats(device)
        passes(trial, content, precision, device)
        optimizer.step()
        optimizer.zero_grad()
        trial.on_step_end(0.0)
    return torch.cuda.max_memory_allocated(device) + GPU_ITSELF


def memory_needed(method: Method, kept: float, device: torch.device, kind: str) -> float:
    """Bytes at once: state, gradients, the optimiser's, what is kept and, on a CPU, the copy for a checkpoint."""
    beside = checkpoint_size(method, kind) if device.type == "cpu" else 0  # the copy that checkpoints are written from
    gpu = GPU_ITSELF if device.type == "cuda" else 0
    return size_of_state(method) + (4 + kept_by(kind)) * learning(method) + ALLOWANCE * kept + beside + gpu


def possible_parts(share: int, least: int, kept: int = 1) -> list[int]:
    """The equal parts that a process's share can be scored in, of so many images at least, from those kept on.

    Where a share has no room for so many parts, the most that it has room for.
    """
    possible = [parts for parts in range(1, share // min(share, least) + 1) if share % parts == 0]
    return [parts for parts in possible if parts >= kept] or possible[-1:]


def parts_within(recipe: Recipe, found: Footprint, limit: float, least: int, kept: int = 1) -> int:
    """The fewest equal parts of a process's share, of so many images at least, that fit into so many bytes.

    They are no fewer than those kept. ValueError where none fits.
    """
    share = recipe.batch_size // world_size()
    possible = possible_parts(share, least, kept)
    for parts in possible:
        if found.of(share // parts) <= limit:
            return parts
    least = share // possible[-1]
    raise ValueError(
        f"{least} images of {recipe.size} px at a time take about {gigabytes(found.of(least))} with {recipe.model} in "
        f"{found.precision}, and {gigabytes(limit)} may be filled: {less(recipe)}"
    )


def too_much(recipe: Recipe, precision: str, count: int) -> str:
    """The message on so many images that did not fit when they were tried."""
    return (
        f"out of memory with {count} images of {recipe.size} px at a time, which were tried with {recipe.model} in "
        f"{precision} to estimate the memory of a batch: {less(recipe)}"
    )


def less(recipe: Recipe) -> str:
    """The ways to less memory for the same images, for an error message."""
    anew = "" if recipe.grad_checkpointing else "compute activations anew with --grad_checkpointing"
    ways = [way for way in ("lower --size", anew, take_own(recipe)) if way]
    return f"{', or '.join(ways)}; --accumulation N starts without this check"


def told(recipe: Recipe, found: Footprint, limit: float, parts: int) -> str:
    """A sentence on the memory that the batch takes and the parts that it is scored in."""
    share = recipe.batch_size // world_size()
    whole = f"{share} images at once take about {gigabytes(found.of(share))} in {found.precision}"
    of = f"of the {gigabytes(limit)} that may be filled"
    if parts == 1:
        return f"Memory: {whole} {of}."
    each = f"{share // parts}, about {gigabytes(found.of(share // parts))}"
    return (
        f"Memory: {whole}, more than {of[3:]}, so they are scored in {parts} parts of {each} (--accumulation sets "
        "another number)."
    )


def instead(recipe: Recipe) -> str:
    """A sentence on what saves memory without comparing fewer images."""
    ways = ["--grad_checkpointing (a third more time)"] if not recipe.grad_checkpointing else []
    if "groups" in {field.name for field in fields(recipe.method)}:
        groups: Any = getattr(recipe.method, "groups")  # noqa: B009 - of LEWEL's methods alone
        ways.append(f"fewer maps (--method.groups above {groups})")
    ways.append(f"a --size below {recipe.size}")
    return f"To compare the whole batch instead: {', or '.join(ways)}."
