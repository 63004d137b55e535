"""A run of any kind, from its first refusal to its results, and the ends that it may come to."""

from __future__ import annotations

from contextlib import closing

from ssl_backbones.data import Images, TooManyUnreadableError
from ssl_backbones.distributed import doing, first_decides, say
from ssl_backbones.ends import one_for_all
from ssl_backbones.methods.method import Method
from ssl_backbones.narrator import as_time
from ssl_backbones.recipes.recipe import Run
from ssl_backbones.runs.log import RunLog
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.runs.trackers import mentioned
from ssl_backbones.train.bench import Bench
from ssl_backbones.train.guards import NotFiniteError
from ssl_backbones.train.judge import Conclude, Judge, SaveResults
from ssl_backbones.train.loader import readers_alive
from ssl_backbones.train.loop import Loop
from ssl_backbones.train.prepare import Begun, check_order, fitting, meet_for, prepare
from ssl_backbones.train.processes import Stopped
from ssl_backbones.train.switches import repeatable

TOGETHER = (NotFiniteError, Stopped, TooManyUnreadableError)
"""Ends that all processes come to after the same step."""


def train_run(run: Run, method: Method, images: Images, judge: Judge, save_results: SaveResults) -> RunFolder:
    """Train a method from where its run was left, save the results and return the run's folder.

    In every process, `judge` measures the network at the end and as often as it says; `save_results` runs in the first.
    """
    device = meet_for(run)
    with fitting():
        check_order(run, images)
    with repeatable():
        begun = prepare(run, method, images, judge, device)
    return complete(begun, save_results)


def nothing_more(bench: Bench) -> None:
    """Measure nothing after the last measurement."""


def complete(begun: Begun, save_results: SaveResults, conclude: Conclude = nothing_more) -> RunFolder:
    """Train to the end, let all processes conclude and the first save the results, and return the run's folder."""
    if isinstance(begun, RunFolder):
        begun.release()
        say(f"{begun.path} holds the finished run; choose another folder with --out to run it again.")
        return begun
    loop, log = begun
    with loop.folder, closing(log):
        try:
            with one_for_all(lambda: progress_of(loop)), readers_alive(lambda: progress_of(loop)):
                finish(loop, log, save_results, conclude)
        except TOGETHER:  # the processes part after one of them has told why
            end_trackers(loop, log)
            raise
        end_trackers(loop, log)
    return loop.folder


def end_trackers(loop: Loop, log: RunLog) -> None:
    """Let the trackers finish; the processes stay together, as another run may follow."""
    for tracker in loop.accelerator.trackers:
        with mentioned(log.say):
            tracker.finish()


def finish(loop: Loop, log: RunLog, save_results: SaveResults, conclude: Conclude = nothing_more) -> None:
    """Train to the last step, let all processes conclude, and the first save the results."""
    with doing(lambda: stage_of(loop, log)):
        trained = loop.train(log)
    conclude(loop.bench)
    with doing(f"Writing the results into {loop.folder.path}"):
        log.say(first_decides(lambda: save_results(trained)))


def stage_of(loop: Loop, log: RunLog) -> str:
    """The step that is being made, and the time that is left."""
    left = "" if log.seconds_left is None else f", {as_time(log.seconds_left)} left"
    return f"Step {min(loop.step + 1, loop.total_steps)} of {loop.total_steps}{left}"


def progress_of(loop: Loop) -> str:
    """The place of a run that ends early, for an error message: "after step 40 of 100, and step 30 is saved: ..."."""
    saved = "nothing was saved yet" if loop.writer.saved is None else f"and step {loop.writer.saved} is saved"
    return f"after step {loop.step} of {loop.total_steps}, {saved}: the same command goes on from there"
