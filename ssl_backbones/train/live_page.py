"""The page of a run while it trains: what it is and its curves so far, written anew at each measurement."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

from ssl_backbones.files import write_file
from ssl_backbones.narrator import as_time
from ssl_backbones.runs.log import RunLog
from ssl_backbones.runs.run_folder import RunFolder
from ssl_backbones.train.loop import Loop
from ssl_backbones.train.prepare import Begun
from ssl_backbones.visualizers.gallery import gallery
from ssl_backbones.visualizers.run_section import run_section

RELOAD = 30
"""Seconds after which a browser loads the page again."""
EVERY = 60.0
"""Seconds between two pages where nothing is measured, at least."""
SHARE = 0.01
"""Part of a run's time that such pages may take."""


class LivePage:
    """Writes a run's page whenever its log has something new; a failure is told once and stops no run."""

    def __init__(self, loop: Loop, log: RunLog, clock: Callable[[], float] = time.monotonic) -> None:
        self.loop, self.log, self.clock = loop, log, clock
        self.path = loop.folder.path / "gallery.html"
        self.due = clock()
        self.failed = False

    def __call__(self, values: Mapping[str, float], step: int) -> None:
        """Write the page for a line of the log with a measurement in it, or where the last page is old."""
        if "rank" in values or self.clock() >= self.due:
            self.write(f"Training, {self.progress()}.", RELOAD)

    def progress(self) -> str:
        """The place of the run and the time that is left: "step 40 of 100, 3 min left"."""
        left = self.log.seconds_left
        return f"step {self.loop.step:,} of {self.loop.total_steps:,}" + (f", {as_time(left)} left" if left else "")

    def write(self, state: str, reload: int = 0) -> None:
        """Put the page in place; it loads itself again after so many seconds, or never for 0."""
        began = self.clock()
        try:
            today = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
            again = f" It is written anew at each measurement, and loads itself every {reload} s." if reload else ""
            lead = f"{state} This page is of {today}.{again}"
            page = gallery(self.loop.run.title, lead, [run_section(self.loop.folder.path)], reload=reload)
            write_file(self.path, page.encode())
        except Exception as error:  # a page is not worth a run, whatever is wrong with it
            if not self.failed:
                self.log.say(f"warning: {self.path} was not written, and training goes on ({error})")
            self.failed = True
        ended = self.clock()
        self.due = ended + max(EVERY, (ended - began) / SHARE)


@contextmanager
def live_page(begun: Begun) -> Iterator[None]:
    """Context manager: keep the page of a run current in its first process; the page of one that ends early says so."""
    if isinstance(begun, RunFolder) or not begun[0].accelerator.is_main_process:
        yield
        return
    page = LivePage(*begun)
    begun[1].trackers.append(page)
    try:
        yield
    except BaseException:
        page.write(f"Ended early, at step {begun[0].step:,} of {begun[0].total_steps:,}: the same command goes on.")
        raise
