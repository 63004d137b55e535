"""The log of a run: files that read back exactly, the terminal, and trackers.

`log.jsonl` holds one JSON object a line, and only what the run's counters decide, so that the file of a run that was
killed and resumed equals the file of one that was not. What time decides goes to `speed.jsonl`.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from io import BufferedWriter
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from ssl_backbones.credentials import without_credentials
from ssl_backbones.files import object_in, regular, telling, without_links, write_file
from ssl_backbones.narrator import NARRATOR, as_time
from ssl_backbones.runs.trackers import Tracker, mentioned
from ssl_backbones.runs.waiting import Spent

NOT_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""JSON knows no such numbers, so they are written as these strings."""


class Bar(tqdm):  # type: ignore[misc]
    """tqdm without its thread: workers are forked beside it."""

    monitor_interval = 0

    def update(self, n: float = 1) -> bool | None:
        """Move on by n, which a person sees where the bar is shown."""
        if not self.disable:
            NARRATOR.heard()
        moved: bool | None = super().update(n)
        return moved


class LineFile:
    """A file of JSON lines that grows, and that a kill can tear only in its last line."""

    def __init__(self, path: Path, step: int | None) -> None:
        """Go on after the lines of steps up to `step`; None starts an empty file."""
        self.path = path
        kept = lines_up_to(path, step)
        if not path.exists() or regular(path).read_bytes() != kept:
            write_file(path, kept)
        with telling(path):
            self.file: BufferedWriter = open(path, "ab", opener=without_links)  # noqa: SIM115 - closed by close

    def write(self, values: Mapping[str, Any]) -> None:
        """Hand a line to the system, which keeps it if this process is killed."""
        with telling(self.path):
            self.file.write(as_line(values))
            self.file.flush()

    def sync(self) -> None:
        """Wait until the lines are on the disk."""
        with telling(self.path):
            os.fsync(self.file.fileno())

    def close(self) -> None:
        with suppress(OSError):  # every line was flushed when it was written, and a failure raised there
            self.file.close()


def opened(folder: Path, step: int | None) -> tuple[LineFile, LineFile]:
    """The log and the file of speeds, both open or none."""
    lines = LineFile(folder / "log.jsonl", step)
    try:
        return lines, LineFile(folder / "speed.jsonl", step)
    except BaseException:
        lines.close()
        raise


class RunLog:
    """The log of a run, in `folder`; only the process with `main` writes or prints anything.

    Steps count those completed. Whatever belongs to a step is written before the checkpoint of that step is made.
    """

    waiting = measured = 0.0
    """The share of the steps' time between the last lines that was waited for images, and a measurement's seconds."""
    measured_since = 0.0
    """Seconds of measurements since a line was printed."""
    told = Spent()
    """The time beside the steps until the last line."""
    effort: Callable[[int], float] = staticmethod(float)
    """The work of the run's first so many steps, with which the time that is left goes."""

    def __init__(
        self,
        folder: Path,
        total_steps: int,
        batch_size: int,
        *,
        trackers: Sequence[Tracker] = (),
        resumed_at: int | None = None,
        main: bool = True,
        stream: TextIO | None = None,
        every_seconds: float = 10.0,
        clock: Callable[[], float] | None = None,
        spent: Spent | None = None,
    ) -> None:
        """`resumed_at` is the step of the checkpoint, whose later lines are dropped; None for a run that starts.

        Where `stream` (stdout) is a terminal it shows a bar, elsewhere a line every so many seconds.
        `spent` is what the run counts of the time beside its steps.
        """
        self.main, self.stream, self.trackers = main, stream or sys.stdout, list(trackers)
        self.failed: set[int] = set()
        self.batch_size, self.total_steps = batch_size, total_steps
        self.every_seconds, self.clock, self.spent = every_seconds, clock or NARRATOR.clock, spent
        self.step = self.first_step = resumed_at or 0
        self.started = self.set_off = self.clock()
        self.written_at = self.printed_at = (self.started, self.step)
        self.shown_at = self.started
        if not main:
            return
        self.lines, self.speeds = opened(folder, resumed_at)
        self.earlier = seconds_in(self.speeds.path)
        self.bar = Bar(
            total=total_steps * batch_size,
            initial=self.step * batch_size,
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
            file=self.stream,
            disable=not self.stream.isatty(),
        )

    @property
    def seconds(self) -> float:
        """The duration of the run so far, with that of the processes that it goes on from."""
        return self.earlier + self.clock() - self.started

    @property
    def seconds_left(self) -> float | None:
        """The time that the rest of the steps takes at the pace of this process; None before its first step."""
        return self.left_at(self.clock())

    def left_at(self, now: float) -> float | None:
        """Seconds that are left at the pace until `now`, a time of the clock; None before the first step."""
        first, done, whole = (self.effort(step) for step in (self.first_step, self.step, self.total_steps))
        pace = (done - first) / max(now - self.set_off, 1e-9)
        return (whole - done) / pace if pace > 0 and self.step < self.total_steps else None

    def advance(self) -> None:
        """Count a step; call it at every one."""
        self.step += 1
        if self.main:
            self.bar.update(self.batch_size)

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Record what the counters decided at the current step, in the files, the trackers and the terminal."""
        if not self.main:
            return
        if self.step == self.first_step:  # what was measured before is no part of the pace
            self.set_off = self.clock()
            self.written_at = self.printed_at = (self.set_off, self.step)
        plain = {name: as_number(value) for name, value in values.items()}
        self.lines.write({"step": self.step, "epoch": epoch} | plain)
        (then, before), now = self.written_at, self.clock()
        speed: dict[str, float] = {"seconds": self.earlier + now - self.started}
        self.measured = self.beside("measurements")
        self.measured_since += self.measured
        moving = now - then - self.measured
        if self.step > before and moving > 0:
            speed["images_per_second"] = (self.step - before) * self.batch_size / moving
            self.waiting = min(1.0, self.beside("waiting") / moving)
            speed |= {} if self.spent is None else {"waiting": self.waiting}
            self.written_at = (now, self.step)
        speed |= {"measuring": self.measured} if self.measured else {}
        self.speeds.write({"step": self.step} | speed)
        self.track(plain | speed)
        self.show(epoch, plain)

    def beside(self, kind: str) -> float:
        """Seconds of a kind since they were asked for last; 0 where nobody counts them."""
        if self.spent is None:
            return 0.0
        before, now = getattr(self.told, kind), getattr(self.spent, kind)
        self.told = replace(self.told, **{kind: now})
        return float(now - before)

    def track(self, values: dict[str, float]) -> None:
        """Hand the values to every tracker; one that fails is mentioned once and does not stop the run."""
        for number, tracker in enumerate(self.trackers):
            with mentioned(self.say, number, self.failed):
                tracker(dict(values), self.step)

    def show(self, epoch: int, values: Mapping[str, float]) -> None:
        """Update the bar, or print a line where the next would come later than every so many seconds."""
        if not self.bar.disable:
            waiting = f", waiting {self.waiting:.0%}" if self.spent is not None else ""
            self.bar.set_postfix_str(f"epoch {epoch}, {in_few_digits(values)}{waiting}")
            return
        (then, before), now = self.printed_at, self.clock()
        until_next, self.shown_at = now - self.shown_at, now
        last = self.step >= self.total_steps
        if before > self.first_step and now - then + until_next < self.every_seconds and not last:
            return
        rate = (self.step - before) / max(now - then - self.measured_since, 1e-9)
        seconds = self.left_at(now)
        left = "" if seconds is None else f", {as_time(seconds)} left"
        waiting = "" if self.spent is None else f", {self.waiting:.0%} of it waiting for images"
        speed = f", {rate * self.batch_size:.0f} images/s{waiting}{left}" if rate > 0 else ""
        speed += f", measured in {as_time(self.measured)}" if self.measured else ""
        self.say(f"step {self.step}/{self.total_steps}, epoch {epoch}: {in_few_digits(values)}{speed}")
        self.printed_at, self.measured_since = (now, self.step), 0.0

    def say(self, sentence: str) -> None:
        """Print a sentence, above the bar where there is one."""
        if self.main:
            self.bar.write(without_credentials(sentence), file=self.stream)
            self.stream.flush()
            NARRATOR.heard()

    def sync(self) -> None:
        """Wait until all that was written is on the disk; before a checkpoint, so that no line is lost with a host."""
        if self.main:
            self.lines.sync()
            self.speeds.sync()

    def close(self) -> None:
        if self.main:
            self.bar.close()
            self.lines.close()
            self.speeds.close()


def as_line(values: Mapping[str, Any]) -> bytes:
    """The values as one line of JSON whose numbers read back equal."""
    return (json.dumps({name: as_json(value) for name, value in values.items()}, allow_nan=False) + "\n").encode()


def as_number(value: Any) -> int | float:
    """A Python number out of one of Python, numpy or torch."""
    return value if type(value) in (int, float) else float(value)


def as_json(value: Any) -> Any:
    """The value, or its name where JSON has no such number."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, as they were written; a torn line is left out."""
    lines = (line_values(line) for line in regular(path).read_bytes().splitlines(keepends=True))
    return [{name: number(value) for name, value in line.items()} for line in lines if line is not None]


def seconds_in(path: Path) -> float:
    """The duration that a speed.jsonl tells in the last line that holds one; 0 without such a line."""
    told = [line.get("seconds") for line in read_log(path)]
    return next((float(one) for one in reversed(told) if type(one) in (int, float) and math.isfinite(one)), 0.0)


def number(value: Any) -> Any:
    """The number that a string stands for, or the value itself."""
    return NOT_NUMBERS.get(value, value) if isinstance(value, str) else value


def is_number(value: Any) -> bool:
    """True for what a line holds of a number: one that a float can be, or the name of one that JSON does not know."""
    kind = type(number(value))
    return kind is float or (kind is int and abs(value) < 2**63)


def line_values(line: bytes) -> dict[str, Any] | None:
    """A whole line's values, or None: for a torn line, and for one that no run has written."""
    if not line.endswith(b"\n"):
        return None
    try:
        values = object_in(line)
    except ValueError:
        return None
    return values if type(values.get("step")) is int and all(map(is_number, values.values())) else None


def lines_up_to(path: Path, step: int | None) -> bytes:
    """The whole lines of a file up to a step, byte for byte; none for step None."""
    if step is None or not path.exists():
        return b""
    lines = [(line, line_values(line)) for line in regular(path).read_bytes().splitlines(keepends=True)]
    return b"".join(line for line, values in lines if values is not None and values["step"] <= step)


def in_few_digits(values: Mapping[str, float]) -> str:
    """The values in few digits, for a person."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
