"""A log reads back exactly, and a resumed run's equals that of a run that was never stopped."""

from __future__ import annotations

import io
import json
import math
import os
import struct
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssl_backbones.files import UnwritableError
from ssl_backbones.narrator import SILENCE, as_time
from ssl_backbones.runs import log
from ssl_backbones.runs.log import RunLog, as_line, number, read_log, seconds_in
from ssl_backbones.runs.waiting import Spent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """A second passes at every look."""

    def __init__(self, pace: float = 1.0) -> None:
        self.now, self.pace = 0.0, pace

    def __call__(self) -> float:
        self.now += self.pace
        return self.now


def run(folder: Path, upto: int, total: int = 12, resumed_at: int | None = None, **more: Any) -> RunLog:
    """Train from where it was to a step, logging what only the step decides."""
    more = {"stream": io.StringIO(), "clock": Clock()} | more
    log = RunLog(folder, total, 32, resumed_at=resumed_at, **more)
    while log.step < upto:
        log.advance()
        if log.step % 2 == 0:
            log.write(log.step // 5, {"loss": 1 / log.step, "lr": math.sin(log.step)})
    return log


@pytest.mark.parametrize(
    ("saved_at", "killed_at"), [(saved, killed) for saved in (None, 0, 3, 6, 7) for killed in range(saved or 0, 12)]
)
def test_a_resumed_log_equals_one_never_stopped(tmp_path: Path, saved_at: int | None, killed_at: int) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    run(tmp_path / "one", 12).close()
    run(tmp_path / "two", killed_at).close()
    with open(tmp_path / "two" / "log.jsonl", "ab") as torn:
        torn.write(b'{"step": 3, "los')
    run(tmp_path / "two", 12, resumed_at=saved_at).close()
    assert (tmp_path / "one" / "log.jsonl").read_bytes() == (tmp_path / "two" / "log.jsonl").read_bytes()
    steps = [line["step"] for line in read_log(tmp_path / "two" / "speed.jsonl")]
    assert steps == sorted(set(steps)) == [2, 4, 6, 8, 10, 12]


def test_a_line_torn_in_the_middle_costs_only_itself(tmp_path: Path) -> None:
    run(tmp_path, 6).close()
    lines = (tmp_path / "log.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "log.jsonl").write_bytes(lines[0] + b"\0\0\0\n" + b"[1]\n" + b'{"no": 1}\n' + lines[2])
    run(tmp_path, 6, resumed_at=6).close()
    assert (tmp_path / "log.jsonl").read_bytes() == lines[0] + lines[2]


def test_a_log_that_needs_no_cut_is_not_rewritten(tmp_path: Path) -> None:
    run(tmp_path, 6).close()
    inode = (tmp_path / "log.jsonl").stat().st_ino
    run(tmp_path, 6, resumed_at=6).close()
    assert (tmp_path / "log.jsonl").stat().st_ino == inode


@given(st.dictionaries(st.text(), st.floats() | st.integers()))
def test_numbers_read_back_equal_and_the_line_is_json(values: dict[str, float]) -> None:
    line = as_line({"step": 1} | {f"_{name}": value for name, value in values.items()})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    back = json.loads(line, parse_constant=refuse)
    for name, value in values.items():
        found = number(back[f"_{name}"])
        assert type(found) is type(value)
        if isinstance(value, float):
            assert math.isnan(found) if math.isnan(value) else struct.pack("d", found) == struct.pack("d", value)
        else:
            assert found == value


def test_numbers_of_torch_and_numpy_become_plain(tmp_path: Path) -> None:
    log = run(tmp_path, 1)
    values = {"a": torch.tensor(0.1), "b": np.float32(0.1), "c": np.int64(3), "d": float("nan"), "e": 7}
    log.write(0, values)  # type: ignore[arg-type]
    log.close()
    (line,) = read_log(tmp_path / "log.jsonl")
    assert line["a"] == line["b"] == float(np.float32(0.1))
    assert line["c"] == 3
    assert math.isnan(line["d"])
    assert line["e"] == 7


def test_lines_survive_a_process_that_never_closes(tmp_path: Path) -> None:
    log = run(tmp_path, 4)
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [2, 4]
    log.sync()
    log.close()


def test_time_goes_to_a_file_of_its_own(tmp_path: Path) -> None:
    run(tmp_path, 6).close()
    assert all(set(line) == {"step", "epoch", "loss", "lr"} for line in read_log(tmp_path / "log.jsonl"))
    speeds = read_log(tmp_path / "speed.jsonl")
    assert all(set(line) == {"step", "seconds", "images_per_second"} for line in speeds)
    assert speeds[1]["images_per_second"] == pytest.approx(64 / (speeds[1]["seconds"] - speeds[0]["seconds"]))


@pytest.mark.parametrize("odd", ["[1]", '"a day"', "null", "true", '"NaN"', "{}"])
def test_the_duration_is_that_of_the_last_line_that_holds_one(tmp_path: Path, odd: str) -> None:
    path = tmp_path / "speed.jsonl"
    path.write_text(f'{{"step": 1, "seconds": 2.5}}\n{{"step": 2, "seconds": {odd}}}\n{{"step": 3}}\n')
    assert seconds_in(path) == 2.5
    path.write_text(f'{{"seconds": {odd}}}\n')
    assert seconds_in(path) == 0.0


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    log = run(tmp_path, 2)
    full = open("/dev/full", "wb") if os.path.exists("/dev/full") else None  # noqa: SIM115
    if full is None:
        pytest.skip("this platform has no /dev/full")
    log.lines.file.close()
    log.lines.file = full
    with pytest.raises(UnwritableError, match=r"log\.jsonl could not be written \(No space left on device\)"):
        log.write(0, {"loss": 1.0})
    log.close()


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    stream = io.StringIO()
    log = run(tmp_path, 4, main=False, stream=stream)
    log.say("hello")
    log.sync()
    log.close()
    assert list(tmp_path.iterdir()) == []
    assert stream.getvalue() == ""
    assert log.step == 4


def test_without_a_terminal_there_are_plain_lines_now_and_then(tmp_path: Path) -> None:
    stream = io.StringIO()
    run(tmp_path, 12, stream=stream, every_seconds=8.0).close()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("step 2/12, epoch 0: loss 0.5, lr 0.9093, ")
    assert lines[-1].startswith("step 12/12, epoch 2: loss 0.08333, lr -0.5366, ")
    assert 3 <= len(lines) < 6
    assert all(" images/s" in line for line in lines)
    assert all(" left" in line for line in lines[:-1])
    assert "\r" not in stream.getvalue()


class Hands:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_that_is_left_goes_by_the_steps_and_not_by_what_was_measured_before(tmp_path: Path) -> None:
    clock = Hands()
    told = RunLog(tmp_path, 100, 32, stream=io.StringIO(), clock=clock)
    clock.now += 1000
    told.write(0, {"knn": 0.5})
    for _ in range(10):
        clock.now += 1
        told.advance()
    assert told.seconds_left == 90
    assert told.seconds == 1010
    told.close()


def test_speeds_are_those_of_the_steps_without_measurements(tmp_path: Path) -> None:
    """Ten steps of a second, and after each of the first nine lines a measurement of a minute."""
    clock, spent, stream = Hands(), Spent(), io.StringIO()
    told = RunLog(tmp_path, 100, 32, stream=stream, clock=clock, spent=spent)
    clock.now, spent.measurements = 60.0, 60.0
    told.write(0, {"knn": 0.5})
    for _ in range(9):
        for _ in range(10):
            clock.now += 1
            spent.waiting += 0.5
            told.advance()
        clock.now, spent.measurements = clock.now + 60, spent.measurements + 60
        told.write(0, {"knn": 0.5})
    told.close()
    lines = [json.loads(line) for line in (tmp_path / "speed.jsonl").read_text().splitlines()]
    assert [line["images_per_second"] for line in lines[1:]] == [32] * 9
    assert [line["waiting"] for line in lines[1:]] == [0.5] * 9
    assert [line["measuring"] for line in lines] == [60] * 10
    assert stream.getvalue().count(", 32 images/s, 50% of it waiting for images") == 9


def test_a_steady_run_says_a_line_before_the_narrator_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, heard = Hands(), []
    monkeypatch.setattr(log.NARRATOR, "heard", lambda: heard.append(clock.now))
    told = RunLog(tmp_path, 100, 32, stream=io.StringIO(), clock=clock)
    while told.step < 99:
        clock.now += 1
        told.advance()
        if told.step % 3 == 0:
            told.write(0, {"loss": 1.0})
    told.close()
    assert max(after - before for before, after in pairwise(heard)) <= SILENCE
    assert len(heard) < 100 / SILENCE + 3


def test_a_terminal_gets_a_bar_with_images_per_second_and_the_time_left(tmp_path: Path) -> None:
    stream = Terminal()
    log = run(tmp_path, 6, stream=stream, resumed_at=4)
    log.bar.refresh()
    log.say("the alarm")
    log.close()
    text = stream.getvalue()
    assert "50%" in text
    assert " images/s" in text
    assert "<" in text
    assert "epoch 1, loss 0.1667" in text
    assert "the alarm\n" in text


def test_trackers_get_everything_and_a_broken_one_is_mentioned_once(tmp_path: Path) -> None:
    got: list[tuple[int, Mapping[str, float]]] = []

    def broken(values: dict[str, float], step: int) -> None:
        values.clear()
        raise ConnectionError("no route to host")

    stream = io.StringIO()
    trackers = [broken, lambda values, step: got.append((step, values))]
    run(tmp_path, 6, trackers=trackers, stream=stream).close()
    assert [step for step, _ in got] == [2, 4, 6]
    assert set(got[0][1]) == {"loss", "lr", "seconds", "images_per_second"}
    assert (
        stream.getvalue().count("warning: a tracker failed, and training goes on (ConnectionError: no route to host)")
        == 1
    )
    assert len(read_log(tmp_path / "log.jsonl")) == 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (42.4, "42 s"), (60, "1 min"), (3540, "59 min"), (3600, "1 h 0 min"), (12000, "3 h 20 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert as_time(seconds) == text
