"""From a run to a loop that is ready to train: what can be refused is refused here, in a sentence, before any work."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from ssl_backbones.checks import check
from ssl_backbones.data import Images, Request
from ssl_backbones.data.order import Order
from ssl_backbones.data.placement import to_device
from ssl_backbones.distributed import doing, first_decides, rank, world_size
from ssl_backbones.methods.method import Method
from ssl_backbones.recipes.never_reached import never_reached
from ssl_backbones.recipes.recipe import Recipe, Run
from ssl_backbones.recipes.ways_out import take_own
from ssl_backbones.refusal import Refusal
from ssl_backbones.runs.checkpoint import Checkpoint, load_latest
from ssl_backbones.runs.log import RunLog
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.runs.waiting import WaitingAdvice
from ssl_backbones.train.beginning import Beginning
from ssl_backbones.train.claiming import check_data, claimed, finished_with, trained_on
from ssl_backbones.train.cost import FirstBatch, expected
from ssl_backbones.train.growth import effort, growth
from ssl_backbones.train.guards import within_memory
from ssl_backbones.train.judge import Judge
from ssl_backbones.train.loader import reading_workers
from ssl_backbones.train.loop import Loop
from ssl_backbones.train.optimization import parameter_groups
from ssl_backbones.train.precision import Compute, check_precision, choose, timed
from ssl_backbones.train.processes import accelerator_of, check_trackers, meet, start_trackers
from ssl_backbones.train.reading import parts_for, read_in_parts
from ssl_backbones.train.saved_state import changed_fields, taking_up
from ssl_backbones.train.switches import set_switches

MOST_THREADS = 4096
"""Beyond it, starting them ends the process."""
Begun = tuple[Loop, RunLog] | RunFolder
"""A run's loop and its log, where an earlier run left off; or the folder of a run that is finished."""


class UnfitError(Refusal, ValueError):
    """A recipe that does not fit the network, the number of processes, or the data."""


def meet_for(run: Run) -> torch.device:
    """This process's device, once all processes have met and can compute as the run wants."""
    device = meet()
    if run.precision != "auto":
        check_precision(run.precision, device)
    check_trackers(run.trackers)
    set_switches(run, device)
    return device


def check_order(run: Run, images: Images) -> None:
    """ValueError where the images cannot be shared out among the processes as the run wants."""
    Order(len(images), run.batch_size, run.seed, rank(), world_size(), run.parts)


def prepare(
    run: Run, method: Method, images: Images, judge: Judge, device: torch.device, given: Beginning | None = None
) -> Begun:
    """The run, ready to go on from where it was left; refusals come before its folder is made."""
    with fitting():
        parameter_groups(method, run.optimizer)  # refuses a part that the method does not have
    with within_memory(run, method, run.precision):
        content, timing = try_first(run, method, images, device)
    folder = claimed(run)
    if first_decides(folder.results.exists):
        check_data(images, *finished_with(folder), folder)
        return folder
    saved, compute = load_latest(folder.checkpoints), None
    if saved is not None:
        with taking_up(saved, folder):
            check_data(images, *trained_on(saved.scalars), folder)
            compute = computed_as_before(saved, device)
    compute = compute or agreed_compute(run, method, images, content, device)
    accelerator = accelerator_of(compute.precision, run.trackers, str(folder.path))
    loop = Loop(run, images, judge, method, compute, accelerator, folder, given)
    if saved is not None:
        with taking_up(saved, folder):
            loop.restore(saved)
    log = RunLog(
        folder.path,
        loop.total_steps,
        run.batch_size,
        trackers=[lambda values, step: accelerator.log(values, step=step)] if run.trackers else [],
        resumed_at=None if saved is None else saved.step,
        main=accelerator.is_main_process,
        spent=loop.loader.spent,
    )
    if run.trackers:
        start_trackers(accelerator, run, saved is None, log.say)
    log.effort = partial(effort, run, loop.loader.steps_per_epoch)
    log.trackers.append(WaitingAdvice(run.to_dict(), log.say))
    introduce(loop, log, saved)
    log.say(expected(loop, timing))
    return loop, log


@contextmanager
def fitting(instead: str = "") -> Iterator[None]:
    """Context manager: turn ValueError into UnfitError, which ends the program with exit code 2; `instead` ends it."""
    try:
        yield
    except ValueError as error:
        raise UnfitError(f"{error}{instead and f'; or {instead}'}") from error


def computed_as_before(saved: Checkpoint, device: torch.device) -> Compute:
    """Precision and layout of a run that has begun: another choice would change its numbers."""
    kept = saved.scalars["compute"]
    check_precision(kept["precision"], device)
    threads = int(kept.get("threads") or saved.made_with["num_threads"])
    check(0 < threads <= MOST_THREADS, "threads", threads, f"from 1 to {MOST_THREADS}")
    torch.set_num_threads(threads)
    return Compute(kept["precision"], kept["layout"], tried={})


def try_first(run: Run, method: Method, images: Images, device: torch.device) -> tuple[Any, FirstBatch]:
    """The first batch of this process, scored on trial, and its time; where views grow, one of the smallest as well.

    UnfitError for images, or so many in a batch, that the method cannot use.
    """
    check_batch(run, method, images)
    content, reading = read_batch(run, method, images, device)
    timing = FirstBatch(reading, try_step(run, method, content, device))
    if (smallest := min(run.sides)) < run.size:
        small, _ = read_batch(run, method, images, device, smallest)
        try_step(run, method, small, device, smallest)
    return content, timing


def check_batch(run: Run, method: Method, images: Images) -> None:
    """UnfitError for images, or so many of them in a batch, that the method cannot use."""
    with fitting(take_own(run)):
        method.check_data(len(images), run.batch_size)


def read_batch(run: Run, method: Method, images: Images, device: torch.device, side: int = 0) -> tuple[Any, float]:
    """Read this process's first batch, with views of `side` px if given, and the seconds that one process takes.

    The method is not asked whether the batch suits it.
    """
    with fitting(take_own(run)):
        dataset = method.dataset(images, run.size, run.seed)
    with fitting("leave out --progressive.start"):
        dataset = dataset.at(side) if side else dataset
    order = Order(len(images), run.batch_size, run.seed, rank(), world_size(), run.parts)
    request: Request = next(order.requests(epoch=0))
    workers = readers(run, images)
    began = time.perf_counter()
    with doing(f"Reading a first batch, {len(request.indices)} images", at_once=True):
        content = dataset.on_device(to_device(read_in_parts(dataset, request, workers).content, device))
    seconds = time.perf_counter() - began
    return content, seconds * max(1, parts_for(len(request.indices), workers))


def readers(run: Run, images: Images) -> int:
    """Processes that make the first batch: those of the run, where parts of a batch are made like the whole."""
    apart = isinstance(run, Recipe) and run.engine != "device" and not images.in_process
    return reading_workers(run.workers) if apart else 0


def try_step(run: Run, method: Method, content: Any, device: torch.device, side: int = 0) -> float:
    """Score a batch with a copy of the method, so that what cannot work is refused before the run's folder is made.

    Returns the seconds that it took.
    """
    trial = copy.deepcopy(method).to(device).train()
    scored: dict[str, Any] = {}
    try:
        with torch.no_grad(), doing("Scoring a first batch"):
            seconds = timed(lambda: scored.update(trial(content)), device)
        if not math.isfinite(loss := float(scored["loss"])):
            raise ValueError(f"its loss is {loss} before any training")
        return seconds
    except ValueError as error:
        raise UnfitError(
            f"a batch of {run.batch_size} images of {side or run.size} px cannot be scored ({error}): change "
            "batch_size, size or accumulation, or the fields of the method that share out a batch"
        ) from error


def agreed_compute(run: Run, method: Method, images: Images, content: Any, device: torch.device) -> Compute:
    """The precision and layout that the run names, or the fastest as the first process measured them."""
    steps = run.total_steps(len(images) // run.batch_size)
    with within_memory(run, method, run.precision), doing("Trying the ways to compute"):
        fastest = choose(method.train(), content, device, run.precision, run.layout, steps)
        return first_decides(lambda: fastest)


def several(count: int, thing: str) -> str:
    """A count of things in words: 1 step, 2 steps."""
    return f"{count} {thing}{'s' * (count != 1)}"


def introduce(loop: Loop, log: RunLog, saved: Checkpoint | None) -> None:
    """Log the size of the run, the learning rate, and the checkpoint it goes on from."""
    run, processes = loop.run, loop.accelerator.num_processes
    log.say(f"{run.title} on {len(loop.images)} images of {run.data}, into {loop.folder.path}")
    whole = run.epochs * loop.loader.steps_per_epoch
    cut = f", of which the first {loop.total_steps} are made" if loop.total_steps < whole else ""
    device = loop.accelerator.device.type
    where = f"{device}, {several(loop.compute.threads, 'thread')}" if device == "cpu" else device
    log.say(
        f"{several(run.epochs, 'epoch')} of {several(loop.loader.steps_per_epoch, 'step')}{cut}, "
        f"{run.batch_size} images a step on "
        f"{processes} process{'es' if processes > 1 else ''} ({where}), {loop.compute}"
    )
    if unused := unused_gpus(loop.accelerator.device, processes):
        log.say(unused)
    log.say(run.lr_sentence())
    for sentence in never_reached(run, loop.loader.steps_per_epoch):
        log.say(sentence)
    if growing := growth(run):
        log.say(growing)
    if run.parts > 1 and not loop.method.accumulation_is_exact:
        log.say(
            f"This method compares the images of a batch, and accumulation scores {run.batch_size // run.parts} at a "
            f"time: its loss is not that of {run.batch_size} images at once."
        )
    if saved is None:
        return
    for reason in saved.skipped:
        log.say(f"A newer checkpoint was not used: {reason}")
    log.say(f"Going on after step {saved.step} of {loop.total_steps}.")
    if changed := saved.changed(processes) + changes(loop, saved):
        log.say(f"The rest may not be bit-identical to a run never stopped: {', '.join(changed)}.")


def unused_gpus(device: torch.device, processes: int) -> str:
    """The sentence on the GPUs of this machine that a run in one process leaves unused; empty where there are none."""
    there = torch.cuda.device_count()
    if device.type != "cuda" or processes > 1 or there < 2:
        return ""
    return (
        f"One of {there} GPUs is used: accelerate launch --multi_gpu --num_processes {there} -m ssl_backbones ... "
        "shares the batch out among them."
    )


def changes(loop: Loop, saved: Checkpoint) -> list[str]:
    """Changes to the run itself that may keep the rest of it from being bit-identical."""
    found = changed_fields(saved, loop.run)
    if loop.accelerator.device.type == "cuda" and not loop.run.deterministic:
        found += ["a GPU without --deterministic"]
    coarse = loop.dataset.decodes_coarsely
    if saved.scalars.get("coarse", coarse) != coarse:
        found += [f"large JPEGs are decoded {'coarsely' if coarse else 'whole'}, and were not, as --cache was changed"]
    return found
