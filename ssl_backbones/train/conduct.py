"""A run from where it stands to what it leaves, and the ends that it may come to."""

from __future__ import annotations

from contextlib import closing

from ssl_backbones.data import TooManyUnreadableError
from ssl_backbones.distributed import rank
from ssl_backbones.runs.log import RunLog
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.finite import NotFiniteError
from ssl_backbones.train.judge import SaveResults
from ssl_backbones.train.loader import readers_alive
from ssl_backbones.train.loop import Loop
from ssl_backbones.train.processes import Stopped, one_for_all
from ssl_backbones.train.start import Begun

TOGETHER = (NotFiniteError, Stopped, TooManyUnreadableError)
"""Ends that all processes come to after the same step."""


def conduct(begun: Begun, save_results: SaveResults) -> RunFolder:
    """Train to the end, let the first process save the results, and return the run's folder."""
    if isinstance(begun, RunFolder):
        begun.release()
        if rank() == 0:
            print(f"{begun.path} holds the finished run; choose another folder with --out to run it again.")
        return begun
    loop, log = begun
    with loop.folder, closing(log):
        try:
            with one_for_all(lambda: whence(loop)), readers_alive(lambda: whence(loop)):
                finish(loop, log, save_results)
        except TOGETHER:
            loop.accelerator.end_training()
            raise
        loop.accelerator.end_training()
    return loop.folder


def whence(loop: Loop) -> str:
    """From where the run can be gone on with."""
    saved = "nothing was saved yet" if loop.saved_step is None else f"and step {loop.saved_step} is saved"
    return f"after step {loop.step} of {loop.total_steps}, {saved}: the same command goes on from there"


def finish(loop: Loop, log: RunLog, save_results: SaveResults) -> None:
    """Train to the last step, and let the first process save the results."""
    trained = loop.train(log)
    if loop.accelerator.is_main_process:
        log.say(save_results(trained))
    loop.accelerator.wait_for_everyone()
