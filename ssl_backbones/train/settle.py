"""The open fields of a recipe, settled once the images and the machine are known, and kept where a run goes on."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ssl_backbones.cores import processes_here
from ssl_backbones.data import Images
from ssl_backbones.data.digests import spread
from ssl_backbones.data.frames import frame_of
from ssl_backbones.distributed import first_decides, gather_objects, say, world_size
from ssl_backbones.methods.method import Method
from ssl_backbones.recipes.facts import Facts
from ssl_backbones.recipes.own import put, settled
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.recipes.rules import RULES
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.channels import views_in_channels
from ssl_backbones.train.claiming import recipe_there
from ssl_backbones.train.parts import PARTS, earlier
from ssl_backbones.views import Engine, Policy, has_opencv

LOOKED_AT = 64
"""Images whose size is read, at most, evenly spread."""
OF_A_GPU, OF_THE_HOST = 0.8, 0.5
"""Shares of a memory that a run may fill: the rest is for views, readers, and other programs."""
FROM = ("size", "batch_size", "epochs")
"""Fields that the rules' values and the parts of a batch follow from."""
LIMIT = Path("/sys/fs/cgroup/memory.max")
"""The memory that a container may use: bytes, or "max"."""


def settle(recipe: Recipe, images: Images, device: torch.device) -> Recipe:
    """The recipe with every field that it leaves to the rules, alike in all processes.

    Those that an earlier run derived stay as `as_before` left them, and parts of a batch that it left open are open
    still: `step_memory.fitted` finds them. ValueError for too few images or too little memory.
    """
    if not recipe.derived:
        return recipe
    kept = first_decides(lambda: values_kept(recipe))
    still_open = tuple(name for name in recipe.derived if name not in kept)
    if still_open:
        memory = fillable_memory(device)
        facts = first_decides(lambda: facts_of(images, device, memory))
        recipe = replace(settled(replace(recipe, derived=still_open), facts), derived=recipe.derived)
    there = tuple(name for name in recipe.derived if name in kept and (name != PARTS or kept[PARTS]))
    origins = {"kept from the run's recipe.json": there, "by the rules of docs/own_rules.md": still_open}
    for origin, names in origins.items():
        if names:
            say(told(recipe, names, len(images), origin))
    return recipe


def as_before(recipe: Recipe) -> Recipe:
    """The recipe with the values that its earlier run in the same folder settled, as recipe.json there holds them.

    Those that this run names are its own. ValueError, in all processes, for an engine that one of them lacks.
    """
    kept = first_decides(lambda: values_kept(recipe))
    if kept.get("engine", recipe.engine) == "opencv" and (lacking := without_opencv()):
        where = "here" if world_size() == 1 else f"where process {', '.join(map(str, lacking))} runs"
        by, instead = "engine is 'opencv', but OpenCV", "take 'pillow'"
        if "engine" in kept:
            by = f"the run in {recipe.folder} makes its views by OpenCV, which"
            instead = "begin another run with --out"
        raise ValueError(f"{by} is not installed {where}: pip install 'ssl-backbones[train]', or {instead}")
    for name, value in kept.items():
        recipe = put(recipe, name, value)
    return recipe


def values_kept(recipe: Recipe) -> dict[str, Any]:
    """The values that the same recipe's run in its folder settled; empty where there is none that has trained.

    Of a run of another size, batch, or length that is the engine alone: its folder is refused when it is claimed, and
    its values may fit none of what this run says. With another number of processes the parts of a batch are 0:
    open again, and left to no rule.
    """
    there = recipe_there(recipe)
    if there is None or there.name != recipe.name:
        return {}
    engine = {} if recipe.engine != "auto" else {"engine": there.engine}
    if any(said_otherwise(recipe, there, name) for name in FROM):
        return engine
    kept = engine | {
        name: attrgetter(name)(there) for name in RULES if name in recipe.derived and name in there.derived
    }
    if PARTS not in kept and recipe.accumulation:
        return kept
    before = earlier(RunFolder(recipe.folder))
    return kept | {PARTS: 0 if before and before.moved else before.parts if before else there.accumulation}


def said_otherwise(recipe: Recipe, there: Recipe, name: str) -> bool:
    """True for a field that is not left to the rules by both recipes, and has another value in each."""
    left_open = name in recipe.derived and name in there.derived
    return not left_open and bool(attrgetter(name)(recipe) != attrgetter(name)(there))


def engine_of(recipe: Recipe, method: Method) -> Engine:
    """The engine that makes a method's views, alike in all processes: the one that the recipe names, or OpenCV's where
    it can make them and every process has it, and else the reference. All processes call it together.

    ValueError where the method's views are not made by the one that is named.
    """
    engines = method.transform(recipe.size).engines
    if recipe.engine == "auto":
        return "opencv" if not recipe.in_chans and "opencv" in engines and not without_opencv() else "pillow"
    if recipe.engine not in engines:
        raise ValueError(
            f"engine is {recipe.engine!r}, but {recipe.method.name} makes its views by {' or '.join(engines)} alone: "
            f"leave out --engine{' and --resident' if recipe.resident else ''}"
        )
    return recipe.engine


def without_opencv() -> list[int]:
    """The ranks of the processes that lack OpenCV, in all of them; they call it together."""
    return [rank for rank, there in enumerate(gather_objects(has_opencv())) if not there]


def views_sentence(recipe: Recipe, method: Method) -> str:
    """A sentence on what makes the views of a recipe that leaves that open no longer, and on what there is besides.

    All processes call it together. A run keeps its engine, so what is faster is for another one.
    """
    if recipe.in_chans:
        return views_in_channels(recipe)
    if recipe.engine == "device":
        return "Views by the network's device (--engine device)."
    if recipe.engine == "opencv":
        return "Views by OpenCV, within a few grey levels of Pillow's."
    if "opencv" not in method.transform(recipe.size).engines:
        return f"Views by Pillow, the only engine for those of {recipe.method.name}."
    faster = "after pip install 'ssl-backbones[train]'" if without_opencv() else "with --engine opencv"
    return f"Views by Pillow, the reference; for faster ones start a new run (--out) {faster}."


def facts_of(images: Images, device: torch.device, memory: float) -> Facts:
    """The facts for the rules, from the images and the machine, of whose memory a process may fill so many bytes."""
    return Facts(len(images), shorter_side(images), memory, device.type == "cuda", world_size())


def shorter_side(images: Images) -> int:
    """The median of the shorter sides, in pixels, of a sample whose headers can be read; 1,000,000 if none can."""
    frames = (frame_of(images.raw(row)) for row in spread(len(images), LOOKED_AT))
    sides = [min(frame.stored) for frame in frames if frame is not None]
    return int(median(sides)) if sides else 1_000_000


def fillable_memory(device: torch.device) -> float:
    """Bytes that each process may fill: the least of what all find. They call it together."""
    return min(gather_objects(memory_here(device)))


def memory_here(device: torch.device) -> float:
    """Bytes that this process may fill: a share of what is free of its GPU's memory, or its share of the host's."""
    if device.type == "cuda":
        return OF_A_GPU * still_free(device)
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if hasattr(os, "sysconf") else 8e9
    with suppress(OSError, ValueError):  # no container, or one without a limit
        total = min(total, float(LIMIT.read_text()))
    return OF_THE_HOST * total / processes_here()


def still_free(device: torch.device) -> int:
    """Bytes of a GPU's memory that neither other programs nor this process's tensors, such as resident images, take."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def told(recipe: Recipe, names: tuple[str, ...], images: int, origin: str) -> str:
    """A sentence with the values of the named fields, which were left to the rules."""
    listed = ", ".join(f"{name} {in_short(attrgetter(name)(recipe))}" for name in names)
    return f"For {images} images, {origin}: {listed}."


def in_short(value: Any) -> str:
    """A derived value in a few words: numbers as they are, views by their blur, of which the rules decide."""
    views = value if isinstance(value, tuple) else (value,)
    if not isinstance(views[0], Policy):
        return str(value)
    told = (f"with blur {view.blur_p:g}" if view.blur_p else "without blur" for view in views)
    return " and ".join(dict.fromkeys(told))
