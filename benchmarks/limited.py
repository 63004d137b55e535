"""A measurement that has so many minutes: parts in order, and one file of results, whole after each of them."""

from __future__ import annotations

import gc
import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ssl_backbones.files import write_json

Row = dict[str, Any]
Part = Callable[[], Iterator[Row]]
"""Measures one thing after another, and yields what it found of each."""
SAID = 4000
"""Characters that are kept of an error's message."""


class Record:
    """Rows of results by part, with a limit of time; whoever is cut short leaves all rows found before."""

    def __init__(self, path: Path, minutes: float, about: Mapping[str, Any]) -> None:
        self.path, self.ends = path, time.monotonic() + 60 * minutes
        self.found: dict[str, Any] = dict(about) | {"parts": {}, "took": {}, "failed": [], "left_out": []}
        self.write()

    def left(self) -> float:
        """Seconds until the limit."""
        return self.ends - time.monotonic()

    def rows(self, part: str) -> list[Row]:
        """The rows of a part so far."""
        rows: list[Row] = self.found["parts"].get(part, [])
        return rows

    def write(self) -> None:
        """Write the file, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.found)

    def note(self, part: str, row: Row) -> None:
        """Add a row to a part, in the file and on the terminal; one that `caught` an error is a failure too."""
        self.found["parts"].setdefault(part, []).append(row)
        if "error" in row:
            self.found["failed"].append({"part": part, **row})
        print(f"{part}: {json.dumps(row)}", flush=True)
        self.write()

    def measure(self, name: str, part: Part, needs: float) -> None:
        """Measure a part, if the seconds that it needs are left; an error ends it alone, and is recorded."""
        began = time.monotonic()
        if self.left() < needs:
            self.found["left_out"].append(name)
            print(f"{name}: left out, {self.left():.0f} s of {needs:.0f} s are left", flush=True)
            return self.write()
        try:
            for row in part():
                self.note(name, row)
        except Exception as error:  # the other parts are worth their minutes on a GPU all the same
            said = {"part": name, **described(error)}
            self.found["failed"].append(said)
            print(f"{name} failed: {json.dumps(said)}", flush=True)
            self.write()
        with suppress(RuntimeError):  # which every call raises after some errors of a device
            free()
        self.found["took"][name] = round(time.monotonic() - began, 1)
        return self.write()


def caught(about: Row, measure: Callable[[], Row]) -> Row:
    """The row of one of several things, or the error that ended it: the others are worth measuring all the same."""
    try:
        return about | measure()
    except Exception as error:
        return about | described(error)


def described(error: Exception) -> Row:
    """An error in words, and the last places that it went through."""
    trace = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    return {"error": f"{type(error).__name__}: {str(error)[:SAID]}", "at": trace[-4:]}


def free() -> None:
    """Give back the device's memory that nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
