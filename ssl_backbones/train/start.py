"""From a recipe to a loop that is ready to run: what can be refused is refused here, in a sentence, before any work."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate.utils import broadcast_object_list

import ssl_backbones
from ssl_backbones.data import Images, ImageSourceError, Request, open_images, relabelled, require_batch, validation_of
from ssl_backbones.distributed import rank, world_size
from ssl_backbones.methods.method import Method
from ssl_backbones.recipes.recipe import FREE, Recipe, Run
from ssl_backbones.refusal import Refusal
from ssl_backbones.runs.checkpoint import Checkpoint, load_latest
from ssl_backbones.runs.log import RunLog
from ssl_backbones.runs.run_folder import RunFolder, claim
from ssl_backbones.train.cache import Caching, cached
from ssl_backbones.train.embed import to_device
from ssl_backbones.train.loader import Order
from ssl_backbones.train.loop import Loop
from ssl_backbones.train.memory import within_memory
from ssl_backbones.train.monitor import Judge, Monitor
from ssl_backbones.train.optimization import parameter_groups
from ssl_backbones.train.precision import Compute, check_precision, choose
from ssl_backbones.train.processes import accelerator_of, check_trackers, first_decides, meet
from ssl_backbones.train.residence import resident
from ssl_backbones.views import check_engine, made_by

T = TypeVar("T")


class UnfitError(Refusal, ValueError):
    """A recipe that does not fit the network, the number of processes, or the data."""


def start(recipe: Recipe) -> tuple[Loop, RunLog] | RunFolder:
    """The loop of a recipe and its log, where an earlier run left off; or the finished run's folder."""
    device = meet_for(recipe)
    with fitting():
        check_engine(recipe.engine)
        method = build(recipe)
        require_engine(recipe, method)
    images, validation = open_data(recipe)
    with fitting():
        check_order(recipe, images)
    images = resident(images, recipe, device)
    monitor = Monitor(images, validation, recipe.monitoring, recipe.seed)
    with made_by(recipe.engine):
        return prepare(recipe, method, images, monitor, device)


def meet_for(run: Run) -> torch.device:
    """This process's device, once all processes have met and can compute as the run wants."""
    device = meet()
    if run.precision != "auto":
        check_precision(run.precision, device)
    check_trackers(run.trackers)
    return device


def check_order(run: Run, images: Images) -> None:
    """ValueError where the images cannot be shared out among the processes as the run wants."""
    Order(len(images), run.batch_size, run.seed, rank(), world_size(), run.accumulation)


def prepare(
    run: Run, method: Method, images: Images, judge: Judge, device: torch.device
) -> tuple[Loop, RunLog] | RunFolder:
    """The loop that trains a method, where an earlier run left off, and its log; or the finished run's folder."""
    with fitting():
        parameter_groups(method, run.optimizer)  # refuses a part that the method does not have
    content = first_batch(run, method, images, device)
    with within_memory(run, run.precision):
        try_step(run, method, content, device)
    folder = claimed(run)
    if first_decides(folder.results.exists):
        check_data(images, json.loads(folder.results.read_bytes())["data"]["fingerprint"], folder)
        return folder
    saved = load_latest(folder.checkpoints, rank=rank(), broadcast=broadcast)
    if saved is not None:
        check_data(images, saved.scalars["images"], folder)
    compute = computed_as_before(saved, device) or agreed_compute(run, method, content, device)
    accelerator = accelerator_of(compute.precision, run.trackers, str(folder.path))
    loop = Loop(run, images, judge, method, compute, accelerator, folder)
    if saved is not None:
        loop.restore(saved)
    if run.trackers:
        accelerator.init_trackers("ssl-backbones")
    log = RunLog(
        folder.path,
        loop.total_steps,
        run.batch_size,
        trackers=[lambda values, step: accelerator.log(values, step=step)] if run.trackers else [],
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
    validation = open_validation(recipe, images)
    how = Caching.of(recipe)
    if how is None:
        return images, validation
    images = cached(images, recipe.data, how)
    if validation is not None:
        validation = cached(validation, recipe.validation or recipe.data, how, "-validation")
    return images, validation


def open_validation(recipe: Recipe, images: Images) -> Images | None:
    """The labelled images to ask about: those that the recipe names, or those beside the ones to train on, if any."""
    if not recipe.validation:
        return validation_of(recipe.data, images)
    validation = open_images(recipe.validation)
    return relabelled(validation, images.classes) if images.labels is not None else validation


@contextmanager
def fitting() -> Iterator[None]:
    """Make a refusal of what a part says about values that do not fit it."""
    try:
        yield
    except ValueError as error:
        raise UnfitError(str(error)) from error


def claimed(run: Run) -> RunFolder:
    """The run's folder in every process; the lock on it is the first one's alone."""
    folder = first_decides(lambda: claim(run.folder, run.to_dict(), may_differ=FREE, complete=run.completed))
    return folder if rank() == 0 else RunFolder(folder.path, folder.resumed)


def build(recipe: Recipe) -> Method:
    """The recipe's method around a new backbone, the same in every process."""
    torch.manual_seed(recipe.seed)
    return recipe.method.build(ssl_backbones.create_model(recipe.model, num_classes=0))


def require_engine(recipe: Recipe, method: Method) -> None:
    """ValueError where the method's views are not made by the engine that the recipe names."""
    engines = method.transform(recipe.size).engines
    if recipe.engine not in engines:
        raise ValueError(
            f"engine is {recipe.engine!r}, but {recipe.method.name} makes its views by {' or '.join(engines)} alone: "
            f"leave out --engine{' and --resident' if recipe.resident else ''}"
        )


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


def first_batch(run: Run, method: Method, images: Images, device: torch.device) -> Any:
    """What this process will see first, on its device; a method refuses here images that it cannot use."""
    with fitting():
        dataset = method.dataset(images, run.size, run.seed)
    order = Order(len(images), run.batch_size, run.seed, rank(), world_size(), run.accumulation)
    request: Request = next(order.requests(epoch=0))
    return dataset.on_device(to_device(dataset[request].content, device))


def try_step(run: Run, method: Method, content: Any, device: torch.device) -> None:
    """Score a batch with a copy of the method, so that what cannot work is refused before the run's folder is made."""
    trial = copy.deepcopy(method).to(device).train()
    try:
        with torch.no_grad():
            trial(content)
    except ValueError as error:
        raise UnfitError(
            f"a batch of {run.batch_size} images of {run.size} px cannot be scored ({error}): change batch_size, "
            "size or accumulation, or the fields of the method that share out a batch"
        ) from error


def agreed_compute(run: Run, method: Method, content: Any, device: torch.device) -> Compute:
    """The precision and layout that the run names, or the fastest as the first process measured them."""
    with within_memory(run, run.precision):
        return broadcast(choose(method.train(), content, device, run.precision, run.layout))


def broadcast(value: T) -> T:
    """The first process's value, in all of them."""
    if world_size() == 1:
        return value
    box = [value]
    broadcast_object_list(box)
    return box[0]


def introduce(loop: Loop, log: RunLog, saved: Checkpoint | None) -> None:
    """Say what is about to happen."""
    run, processes = loop.recipe, loop.accelerator.num_processes
    log.say(f"{run.title} on {len(loop.images)} images of {run.data}, into {loop.folder.path}")
    whole = run.epochs * loop.loader.steps_per_epoch
    cut = f", of which the first {loop.total_steps} are made" if loop.total_steps < whole else ""
    log.say(
        f"{run.epochs} epochs of {loop.loader.steps_per_epoch} steps{cut}, {run.batch_size} images a step on "
        f"{processes} process{'es' if processes > 1 else ''} ({loop.accelerator.device.type}), {loop.compute}"
    )
    log.say(run.lr_sentence())
    if saved is None:
        return
    for reason in saved.skipped:
        log.say(f"A newer checkpoint was not used: {reason}")
    log.say(f"Going on after step {saved.step} of {loop.total_steps}.")
    if changed := saved.changed(processes):
        log.say(f"The rest may not be bit-identical to a run never stopped: {', '.join(changed)}.")
