"""From a recipe to a loop that is ready to run: what can be refused is refused here, in a sentence, before any work."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate.utils import broadcast_object_list
from checkpoint import Checkpoint, load_latest
from compute import Compute, check_precision, choose
from embed import to_device
from loader import Order
from log import RunLog
from loop import Loop
from monitor import Monitor
from optimization import parameter_groups
from processes import accelerator_of, check_trackers, first_decides, meet
from recipe import FREE, Recipe
from run_folder import RunFolder, claim

import ssl_backbones
from ssl_backbones.data import Images, ImageSourceError, Request, open_images, relabelled, require_batch, validation_of
from ssl_backbones.distributed import rank, world_size
from ssl_backbones.methods.method import Method

T = TypeVar("T")


class UnfitError(ValueError):
    """A recipe that does not fit the network, the number of processes, or the data."""


def start(recipe: Recipe) -> tuple[Loop, RunLog] | RunFolder:
    """The loop of a run and its log, where an earlier run left off if there was one; its folder if it has finished."""
    device = meet()
    if recipe.precision != "auto":
        check_precision(recipe.precision, device)
    check_trackers(recipe.trackers)
    images, validation = open_data(recipe)
    with fitting():
        Order(len(images), recipe.batch_size, recipe.seed, rank(), world_size(), recipe.accumulation)
        method = build(recipe)
        parameter_groups(method, recipe.optimizer)  # refuses a part that the method does not have
    content = first_batch(recipe, method, images, device)
    try_step(recipe, method, content, device)
    folder = claimed(recipe)
    if first_decides(folder.results.exists):
        check_data(images, json.loads(folder.results.read_bytes())["data"]["fingerprint"], folder)
        return folder
    saved = load_latest(folder.checkpoints, rank=rank(), broadcast=broadcast)
    if saved is not None:
        check_data(images, saved.scalars["images"], folder)
    compute = computed_as_before(saved, device) or agreed_compute(recipe, method, content, device)
    accelerator = accelerator_of(compute.precision, recipe.trackers, str(folder.path))
    monitor = Monitor(images, validation, recipe.monitoring, recipe.seed)
    loop = Loop(recipe, images, monitor, method, compute, accelerator, folder)
    if saved is not None:
        loop.restore(saved)
    if recipe.trackers:
        accelerator.init_trackers("ssl-backbones")
    log = RunLog(
        folder.path,
        loop.total_steps,
        recipe.batch_size,
        trackers=[lambda values, step: accelerator.log(values, step=step)] if recipe.trackers else [],
        resumed_at=None if saved is None else saved.step,
        main=accelerator.is_main_process,
    )
    introduce(loop, log, saved)
    return loop, log


def open_data(recipe: Recipe) -> tuple[Images, Images | None]:
    """The images to train on, enough for a batch, and the labelled ones to ask about, if any."""
    if not recipe.data:
        raise ImageSourceError(
            f"{recipe.name} was made for {recipe.promise.data} and has no data here: name a folder of images, parquet "
            "files or a Hub dataset with --data"
        )
    images = open_images(recipe.data)
    require_batch(images, recipe.batch_size)
    if not recipe.validation:
        return images, validation_of(recipe.data, images)
    validation = open_images(recipe.validation)
    return images, relabelled(validation, images.classes) if images.labels is not None else validation


@contextmanager
def fitting() -> Iterator[None]:
    """Make a refusal of what a part says about values that do not fit it."""
    try:
        yield
    except ValueError as error:
        raise UnfitError(str(error)) from error


def claimed(recipe: Recipe) -> RunFolder:
    """The run's folder in every process; the lock on it is the first one's alone."""
    folder = first_decides(lambda: claim(recipe.folder, recipe.to_dict(), may_differ=FREE))
    return folder if rank() == 0 else RunFolder(folder.path, folder.resumed)


def build(recipe: Recipe) -> Method:
    """The recipe's method around a new backbone, the same in every process."""
    torch.manual_seed(recipe.seed)
    return recipe.method.build(ssl_backbones.create_model(recipe.model, num_classes=0))


def check_data(images: Images, fingerprint: str, folder: RunFolder) -> None:
    """Refuse to go on with other images than those the run began with."""
    if fingerprint != images.fingerprint:
        raise ImageSourceError(
            f"the images are not those that the run in {folder.path} began with (fingerprint {images.fingerprint[:12]} "
            f"instead of {fingerprint[:12]}): give it the same data, or begin another run with --out"
        )


def computed_as_before(saved: Checkpoint | None, device: torch.device) -> Compute | None:
    """How the run was computed until now, if it has begun: going on in another way would change its numbers."""
    if saved is None:
        return None
    check_precision(saved.scalars["compute"]["precision"], device)
    return Compute(**saved.scalars["compute"], tried={})


def first_batch(recipe: Recipe, method: Method, images: Images, device: torch.device) -> Any:
    """What this process will see first, on its device; a method refuses here images that it cannot use."""
    with fitting():
        dataset = method.dataset(images, recipe.size, recipe.seed)
    order = Order(len(images), recipe.batch_size, recipe.seed, rank(), world_size(), recipe.accumulation)
    request: Request = next(order.requests(epoch=0))
    return dataset.on_device(to_device(dataset[request].content, device))


def try_step(recipe: Recipe, method: Method, content: Any, device: torch.device) -> None:
    """Score a batch with a copy of the method, so that what cannot work is refused before the run's folder is made."""
    trial = copy.deepcopy(method).to(device).train()
    try:
        with torch.no_grad():
            trial(content)
    except ValueError as error:
        raise UnfitError(
            f"a batch of {recipe.batch_size} images of {recipe.size} px cannot be scored ({error}): change batch_size, "
            "size or accumulation, or the fields of the method that share out a batch"
        ) from error


def agreed_compute(recipe: Recipe, method: Method, content: Any, device: torch.device) -> Compute:
    """The precision and layout of the recipe, or the fastest as the first process measured them."""
    return broadcast(choose(method.train(), content, device, recipe.precision, recipe.layout))


def broadcast(value: T) -> T:
    """The first process's value, in all of them."""
    if world_size() == 1:
        return value
    box = [value]
    broadcast_object_list(box)
    return box[0]


def introduce(loop: Loop, log: RunLog, saved: Checkpoint | None) -> None:
    """Say what is about to happen."""
    recipe, processes = loop.recipe, loop.accelerator.num_processes
    log.say(f"{recipe.name}: {recipe.model} on {len(loop.images)} images of {recipe.data}, into {loop.folder.path}")
    log.say(
        f"{recipe.epochs} epochs of {loop.loader.steps_per_epoch} steps, {recipe.batch_size} images a step on "
        f"{processes} process{'es' if processes > 1 else ''} ({loop.accelerator.device.type}), {loop.compute}"
    )
    log.say(recipe.lr_sentence())
    if saved is None:
        return
    for reason in saved.skipped:
        log.say(f"A newer checkpoint was not used: {reason}")
    log.say(f"Going on after step {saved.step} of {loop.total_steps}.")
    if changed := saved.changed(processes):
        log.say(f"The rest may not be bit-identical to a run never stopped: {', '.join(changed)}.")
