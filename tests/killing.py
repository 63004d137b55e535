"""A run started in processes of its own, watched from outside, and killed at a chosen moment."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.refusal import Refusal
from ssl_backbones.train.pretrain import pretrain

PATIENCE = 600.0
"""Seconds within which a process must end after another of the same run was killed."""
POLL = 0.001


class Attempt:
    """A recipe being run, as one command would: forked from here, where everything is imported already."""

    def __init__(self, recipe: Recipe, processes: int) -> None:
        self.recipe, self.folder = recipe, recipe.folder
        self.speech = self.folder.with_name("said.txt")
        self.log_before, self.parts_before = last_line(self.folder), unfinished(self.folder)
        self.began = time.monotonic()
        port = free_port()
        self.pids = [self.fork(rank, processes, port) for rank in range(processes)]
        self.ended: dict[int, int] = {}

    def fork(self, rank: int, processes: int, port: int) -> int:
        """The id of a process that runs the recipe as one rank."""
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            os.setpgid(0, 0)  # as a shell starts a command, whose group Ctrl-C goes to
            with open(self.speech, "a") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            os.environ["ACCELERATE_USE_CPU"] = "true"
            if processes > 1:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
                os.environ |= {"LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            torch.set_num_threads(1)
            code = run(self.recipe)
        finally:
            os._exit(code)

    def running(self) -> bool:
        """True if any of the processes is at work."""
        for pid in self.pids:
            if pid not in self.ended:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    self.ended[pid] = os.waitstatus_to_exitcode(status)
        return len(self.ended) < len(self.pids)

    def join(self) -> None:
        """Wait for the end of all of them."""
        while self.running():
            time.sleep(0.01)

    def codes(self) -> set[int]:
        """The exit codes of the processes that have ended; negative is a signal."""
        return set(self.ended.values())

    def said(self) -> str:
        """The last of what was printed."""
        return " ".join(self.speech.read_text(errors="replace")[-1500:].split())

    def wait_for(self, moment: str, generator: random.Random, seconds: float) -> bool:
        """True if the moment came before the run was over; then wait a little more, at random."""
        happened = self.watch(moment, generator, seconds)
        while not happened():
            if not self.running():
                return False
            time.sleep(POLL)
        step = seconds / 20
        time.sleep(generator.uniform(0, {"writing": step / 2, "any time": 0, "starting": 0}.get(moment, step)))
        return True

    def watch(self, moment: str, generator: random.Random, seconds: float) -> Callable[[], bool]:
        """A function that is true once the moment has come."""
        steps = self.recipe.epochs * 3
        if moment in ("starting", "any time"):
            at = self.began + generator.uniform(0, seconds / (6 if moment == "starting" else 1))
            return lambda: time.monotonic() > at
        if moment == "writing":
            nth, seen = generator.randint(1, 3), set(self.parts_before)

            def written() -> bool:
                seen.update(unfinished(self.folder))
                return len(seen) >= len(self.parts_before) + nth

            return written
        if moment == "leaving":
            there = (self.folder / "backbone").exists
            return lambda: there() and (last_line(self.folder) or {"step": 0})["step"] == steps
        wanted = {
            "between steps": lambda line: "loss" in line,
            "measuring": lambda line: "loss" in line and line["step"] % 3 == 0,
            "epoch's edge": lambda line: "knn" in line,
        }[moment]
        return Lines(self, wanted, generator.randint(1, 4 if moment == "between steps" else 2))

    def send(self, number: int, ranks: list[int] | None = None) -> None:
        """Send a signal to these ranks, or to all, as far as they run."""
        self.running()
        for rank in range(len(self.pids)) if ranks is None else ranks:
            if self.pids[rank] not in self.ended:
                os.kill(self.pids[rank], number)

    def send_to_group(self, number: int) -> None:
        """Send a signal to every rank with all that it started."""
        self.running()
        for pid in {*self.pids} - {*self.ended}:
            with contextlib.suppress(ProcessLookupError):  # before the process has a group of its own
                os.killpg(pid, number)

    def workers(self) -> list[int]:
        """The processes that the ranks started."""
        found: list[int] = []
        for pid in {*self.pids} - {*self.ended}:
            with contextlib.suppress(OSError):
                for thread in os.listdir(f"/proc/{pid}/task"):
                    found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
        return sorted(found)

    def join_within(self, seconds: float) -> bool:
        """True if all of them ended within their time; otherwise they are killed."""
        begun = time.monotonic()
        while self.running() and time.monotonic() < begun + seconds:
            time.sleep(POLL)
        ended = not self.running()
        self.send(signal.SIGKILL)
        self.join()
        return ended

    def kill(self, victims: list[int]) -> tuple[bool, float | None]:
        """Kill some ranks. Whether the run was over by then, and how long the others lived on; None for too long."""
        self.send(signal.SIGKILL, victims)
        killed = time.monotonic()
        ended = self.join_within(PATIENCE)
        finished = (self.folder / "results.json").exists()
        return finished, round(time.monotonic() - killed, 2) if ended else None


class Lines:
    """Says when the log has got so many new lines of a kind since the attempt began."""

    def __init__(self, attempt: Attempt, wanted: Callable[[dict[str, Any]], bool], count: int) -> None:
        self.folder, self.wanted, self.left = attempt.folder, wanted, count
        self.last = attempt.log_before

    def __call__(self) -> bool:
        line = last_line(self.folder)
        if line != self.last:
            self.last = line
            self.left -= line is not None and self.wanted(line)
        return self.left <= 0


def run(recipe: Recipe) -> int:
    """The exit code of a recipe's run, as the command line has it."""
    try:
        pretrain(recipe)
    except Refusal as error:
        print(f"refused: {error}", file=sys.stderr, flush=True)
        return 2
    except SystemExit as end:
        return int(end.code or 0)
    except KeyboardInterrupt:
        return 130
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0


def last_line(folder: Path) -> dict[str, Any] | None:
    """The last whole line of a run's log."""
    with contextlib.suppress(OSError, ValueError):
        lines = (folder / "log.jsonl").read_bytes().splitlines(keepends=True)
        whole = [line for line in lines[-2:] if line.endswith(b"\n")]
        return json.loads(whole[-1]) if whole else None
    return None


def unfinished(folder: Path) -> set[tuple[str, int]]:
    """The checkpoints being written or deleted, each with its number on the disk."""
    with contextlib.suppress(OSError):
        return {
            (entry.name, entry.inode())
            for entry in os.scandir(folder / "checkpoints")
            if entry.name.startswith((".tmp-step-", ".tmp-old-"))
        }
    return set()


def where_it_died(attempt: Attempt) -> str:
    """The place where a kill struck, by the files it left behind."""
    line = last_line(attempt.folder)
    if unfinished(attempt.folder) - attempt.parts_before:
        return "inside a checkpoint write"
    if line is not None and line["step"] == attempt.recipe.epochs * 3 and "knn" in line:
        return "after the last step"
    if line is None or line == attempt.log_before:
        return "before the first new line of the log"
    if "knn" in line:
        return "at the epoch's edge"
    return "inside k-NN" if line["step"] % 3 == 0 else "between steps"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        port: int = there.getsockname()[1]
        return port
