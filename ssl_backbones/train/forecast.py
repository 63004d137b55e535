"""The cost of a run before it is made: steps, hours, memory and disk, from a few steps timed on this machine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from tempfile import mkdtemp
from typing import Self

import numpy as np
import torch

from ssl_backbones.data import Images
from ssl_backbones.data.placement import Layout, in_layout, laid_out
from ssl_backbones.data.subset import at
from ssl_backbones.distributed import doing, first_decides, gather_objects, rank, world_size
from ssl_backbones.methods.method import Method
from ssl_backbones.models.activations import counted
from ssl_backbones.narrator import as_time
from ssl_backbones.recipes.channels import shown
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.train.beginning import Beginning
from ssl_backbones.train.cache import Caching, cached, expected_bytes, is_made, made_at_once
from ssl_backbones.train.cost import disk_needed, gigabytes, while_reading
from ssl_backbones.train.growth import pixels
from ssl_backbones.train.guards import within_memory
from ssl_backbones.train.loader import reading_workers
from ssl_backbones.train.optimization import build_optimizer
from ssl_backbones.train.precision import available, passes, timed
from ssl_backbones.train.prepare import check_batch, fitting, meet_for, read_batch
from ssl_backbones.train.pretrain import build, part_of, settled_on_data
from ssl_backbones.train.settle import as_before, engine_of
from ssl_backbones.train.step_memory import fewest, fitted, memory_needed
from ssl_backbones.train.switches import set_switches
from ssl_backbones.views import using_engine

TIMED_ON_CPU = 4
"""Images of a timed step on a CPU, whose time grows with them; a GPU is given as many as it will have."""
PATIENCE = 8.0
"""Seconds that the timing takes at the most, where a step is not longer."""
QUICK = 1.0
"""Seconds of a step below which more images are timed."""
ROUNDS = 5
"""Steps that are timed, at most."""


@dataclass(frozen=True)
class Forecast:
    """The cost of a run, as far as a few steps of it tell."""

    steps: int
    steps_per_epoch: int
    seconds: float
    """Seconds of a step on the machine that was timed; the mean over epochs where views grow."""
    memory: float
    """Bytes at once on the device, of each process."""
    disk: float
    """Bytes in the run's folder, while the last checkpoint is written."""
    timed: str
    """The machine and the precision of the timing, in words."""
    before: float = 0.0
    """Seconds of what is made of all images before the first step, such as a teacher's features of them."""

    @property
    def hours(self) -> float:
        """Hours until the last step, measurements and checkpoints apart."""
        return (self.before + self.steps * self.seconds) / 3600

    def __str__(self) -> str:
        first = f"about {as_time(self.before)} for what is made of all images once; " if self.before else ""
        return (
            f"{first}{self.steps} steps, {self.steps_per_epoch} an epoch; "
            f"{as_time(self.steps_per_epoch * self.seconds)} an epoch, {as_time(self.steps * self.seconds)} in all "
            f"({self.timed}); about {gigabytes(self.memory)} of memory and "
            f"{gigabytes(self.disk)} of disk"
        )


def dry_run(recipe: Recipe) -> Forecast:
    """The forecast of a recipe on its data; what does not fit the images, the engine or the processes is refused."""
    device = meet_for(recipe)
    recipe = replace(recipe, method=shown(recipe.method, recipe))
    with fitting():
        recipe = as_before(recipe)
        engine = engine_of(recipe, build(Beginning(random(recipe), None)))
    recipe, images, _ = settled_on_data(replace(recipe, engine=engine), device)
    with using_engine(engine), FewSteps.of(recipe, images) as trial, fitting():
        fits = fitted(trial.recipe, trial.build(), trial.images, device)
    recipe = replace(recipe, accumulation=fits.accumulation)
    return forecast(recipe, images, device)


def forecast(recipe: Recipe, images: Images, device: torch.device) -> Forecast:
    """The forecast of a recipe that has no field open, from a few steps on some of its images; nothing is written."""
    set_switches(recipe, device)
    with FewSteps.of(recipe, images) as trial:
        method = trial.build()
        check_batch(recipe, method, images)
        before = trial.seconds_before(method, len(images))
        found = enough(trial.recipe, method, trial.images, device)
    at_once = recipe.batch_size // (recipe.parts * world_size())
    share = recipe.batch_size // world_size()
    workers = 0 if images.in_process else reading_workers(recipe.workers)
    reading = share * found.views
    steps_per_epoch = len(images) // recipe.batch_size
    steps = recipe.total_steps(steps_per_epoch)
    passed = pixels(recipe)[: -(-steps // steps_per_epoch)]
    computing = [share * found.passes * less + found.rest for less in passed]
    threads = f"{(count := torch.get_num_threads())} thread{'s' * (count > 1)}, " if device.type == "cpu" else ""
    return Forecast(
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        seconds=fmean(while_reading(each, reading, workers, device) for each in computing),
        memory=memory_needed(method, found.kept * at_once, device, recipe.optimizer.kind),
        disk=disk_needed(recipe, method),
        timed=f"timed on {found.images} images, {device.type}, {threads}{found.precision}, measurements apart",
        before=before,
    )


@dataclass(frozen=True)
class FewSteps:
    """The recipe and the images that a few steps are timed of."""

    recipe: Recipe
    images: Images
    """All, or a batch of them where the method makes files of every image before the first step."""
    kept: Path
    """The folder of those files."""
    caching: float
    """Seconds that the cache takes for an image; 0 where there is none to make."""

    @classmethod
    @contextmanager
    def of(cls, recipe: Recipe, images: Images) -> Iterator[Self]:
        """Context manager: the steps of a recipe, which leave no file behind."""
        shared = existing(recipe.folder) if world_size() > 1 else None  # other machines see no /tmp of the first one
        place = Path(first_decides(partial(mkdtemp, prefix=".ssl-backbones-", dir=shared)))
        try:
            method = recipe.method.on_trial(place / "kept")
            images, caching = on_trial(recipe, images, place / "cache")
            if method is not recipe.method:
                images = at(images, np.arange(min(len(images), recipe.batch_size)))
            yield cls(replace(random(recipe), method=method), images, place / "kept", caching)
            gather_objects(None)  # all processes have read what is there
        finally:
            if rank() == 0:
                shutil.rmtree(place, ignore_errors=True)

    def build(self) -> Method:
        """The method, from random weights."""
        with fitting():
            return build(Beginning(self.recipe, None)).train()

    def seconds_before(self, method: Method, count: int) -> float:
        """Seconds that the files of so many images take; they are there for the steps afterwards."""
        if self.recipe.method.on_trial(self.kept) is self.recipe.method:
            return self.caching * count
        seconds = 0.0
        for few in (at(self.images, np.arange(1)), self.images):  # with the first, what is needed is opened
            first_decides(partial(shutil.rmtree, self.kept, ignore_errors=True))
            began = time.perf_counter()
            with fitting():
                method.dataset(few, self.recipe.size, self.recipe.seed)
            seconds = time.perf_counter() - began
        return (seconds / len(self.images) + self.caching) * count


def on_trial(recipe: Recipe, images: Images, place: Path) -> tuple[Images, float]:
    """The images as the recipe's cache has them, and the seconds that it takes for each that is put in.

    Where that cache is not made yet, it is of one batch and lies in `place`.
    """
    how = Caching.of(recipe)
    if how is None:
        return images, 0.0
    if is_made(recipe.data, how, part_of(images)):
        return cached(images, recipe.data, how, part_of(images)), 0.0
    if not how.takes(first_decides(partial(expected_bytes, images, how))):
        return images, 0.0
    few, how = at(images, np.arange(min(len(images), recipe.batch_size))), replace(how, folder=place)
    seconds = first_decides(lambda: made_at_once(few, recipe.data, how))
    return cached(few, recipe.data, how), seconds


def enough(recipe: Recipe, method: Method, images: Images, device: torch.device) -> Timing:
    """Time a few images at once, and more of them where a step of those is quick."""
    at_once = recipe.batch_size // (recipe.parts * world_size())
    few = at_once if device.type == "cuda" else max(TIMED_ON_CPU, fewest(method))
    found = timing(recipe, method, images, device, min(at_once, few))
    more = first_decides(partial(larger, found, at_once))
    return timing(recipe, method, images, device, more) if more else found


def larger(found: Timing, at_once: int) -> int:
    """The images to time instead of so few that their step is mostly overhead; 0 where it is not."""
    if found.images >= at_once or found.step >= QUICK:
        return 0
    return min(at_once, max(found.images, int(found.images * PATIENCE / (4 * found.step))))


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())


def random(recipe: Recipe) -> Recipe:
    """The recipe from random weights, whose steps cost the same."""
    return replace(recipe, init="", start=None)


@dataclass(frozen=True)
class Timing:
    """Seconds and bytes of a step."""

    images: int
    views: float
    """Seconds of an image."""
    passes: float
    """Seconds of an image, forward and backward."""
    rest: float
    """Seconds of the optimiser and of what follows it, whatever the images."""
    kept: float
    """Bytes of an image that the backward pass keeps."""
    precision: str

    @property
    def step(self) -> float:
        """Seconds of the step that was timed."""
        return self.images * self.passes + self.rest


def timing(recipe: Recipe, method: Method, images: Images, device: torch.device, count: int) -> Timing:
    """Time a few steps of `count` images, from their decoding on, until PATIENCE is over; they train the method."""
    trial = replace(recipe, batch_size=count * world_size(), accumulation=1)
    precision = available(device)[-1] if recipe.precision == "auto" else recipe.precision
    layout = layout_on(device) if recipe.layout == "auto" else recipe.layout
    timed_here = f"Timing {count} images of {recipe.size} px by {recipe.model}"
    with fitting():
        engine = engine_of(recipe, method)
    with doing(timed_here, at_once=True), using_engine(engine):
        batch, views = read_batch(trial, method, images, device)
        batch = in_layout(batch, layout)
        laid_out(method.to(device), layout)
        optimizer = build_optimizer(method, trial)

        both_passes = partial(passes, method, batch, precision, device)

        def rest() -> None:
            optimizer.step()
            optimizer.zero_grad()
            method.on_step_end(0.0)

        with within_memory(recipe, method, recipe.precision), counted(method) as storages:
            times = [(timed(both_passes, device), timed(rest, device))]
        while first_decides(partial(another, times)):
            times.append((timed(both_passes, device), timed(rest, device)))
    both = [median(column) for column in zip(*(times[1:] or times), strict=True)]  # the first one is to warm up
    return Timing(count, views / count, both[0] / count, both[1], sum(storages.values()) / count, precision)


def layout_on(device: torch.device) -> Layout:
    """The layout that is timed where a run chooses its own: on a GPU the one that it nearly always takes."""
    return "channels_last" if device.type == "cuda" else "contiguous"


def another(times: Sequence[tuple[float, float]]) -> bool:
    """True if there is time for another step after those, of which the last takes as long as any."""
    seconds = [sum(each) for each in times]
    return len(times) <= ROUNDS and sum(seconds) + max(seconds) < PATIENCE
