"""Nothing is silent for longer than ten seconds, whoever is slow: the images, the network, the disk."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from limits import HANG
from runs import forget, tiny
from runs import run_whole as run_recipe
from whole_runs import data

from ssl_backbones import distributed
from ssl_backbones.commands import evaluate, mine_pairs
from ssl_backbones.data.folder import ImageFolder
from ssl_backbones.distributed import doing, say
from ssl_backbones.evaluate.comparison.jobs import last_line
from ssl_backbones.methods import BYOLConfig, DeepClusterConfig
from ssl_backbones.narrator import LOOK, NARRATOR, SILENCE, Narrator
from ssl_backbones.recipes.settings import Checkpoints
from ssl_backbones.runs.progress import counted
from ssl_backbones.runs.writer import Writer
from ssl_backbones.train import precision
from ssl_backbones.train.loop import Loop

__all__ = ["data"]


class Slow:
    """A clock that stands still but for `pass_`, in which a narrator looks as often as its thread would."""

    def __init__(self, narrator: Narrator) -> None:
        self.now, self.narrator = 0.0, narrator

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        for _ in range(round(seconds / LOOK)):
            self.now += LOOK
            self.narrator.look()

    def slowed(self, seconds: float, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, which takes so much longer."""

        def slow(*words: Any, **more: Any) -> Any:
            self.pass_(seconds)
            return work(*words, **more)

        return slow


class Stamped(io.StringIO):
    """Standard output whose lines are stamped by a clock."""

    def __init__(self, clock: Slow) -> None:
        super().__init__()
        self.clock, self.lines, self.open = clock, [(0.0, "the command was given")], ""

    def write(self, text: str) -> int:
        *whole, self.open = (self.open + text).split("\n")
        self.lines += [(self.clock(), line) for line in whole if line.strip()]
        return len(text)

    def longest_silence(self) -> tuple[float, str]:
        """The longest time without a line, and the line before it."""
        times = [*self.lines, (self.clock(), "the end")]
        return max((then - when, line) for (when, line), (then, _) in pairwise(times))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Slow:
    slow = Slow(NARRATOR)
    monkeypatch.setattr(NARRATOR, "clock", slow)
    monkeypatch.setattr(NARRATOR, "heard_at", 0.0)
    return slow


@pytest.fixture
def out(clock: Slow) -> Stamped:
    return Stamped(clock)


def slow_everywhere(clock: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source, a machine and a disk on which everything takes long."""
    monkeypatch.setattr(ImageFolder, "__getitem__", clock.slowed(3, ImageFolder.__getitem__))
    monkeypatch.setattr(ImageFolder, "__init__", clock.slowed(45, ImageFolder.__init__))
    monkeypatch.setattr(Loop, "descend", clock.slowed(25, Loop.descend))
    monkeypatch.setattr(precision.Trial, "seconds", clock.slowed(35, precision.Trial.seconds))
    monkeypatch.setattr(Writer, "save", clock.slowed(60, Writer.save))


@pytest.mark.parametrize("kind", [BYOLConfig, DeepClusterConfig])
def test_a_slow_run_is_never_silent(
    kind: type[Any], data: Path, tmp_path: Path, clock: Slow, out: Stamped, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_everywhere(clock, monkeypatch)
    recipe = tiny(kind, data, tmp_path / "run", layout="auto", log_every=100, checkpoints=Checkpoints(every_minutes=1))
    with redirect_stdout(out), NARRATOR.during("pretrain is at work"):
        run_recipe(recipe)
    assert clock.now > 600
    silence, after = out.longest_silence()
    assert silence <= SILENCE + LOOK, after
    told = "\n".join(line for _, line in out.lines)
    for expected in (
        f"Opening {data}",
        "(10 s so far)",
        "Reading a first batch, 8 images",
        "Trying a step in fp32 contiguous",
        "Forecast: about",
        "Embedding images: 0 of 26",
        "Step 3 of 6",
        " left (",
        "Trained and measured for",
    ):
        assert expected in told, expected


@pytest.mark.parametrize("protocol", ["knn", "diagnose"])
def test_a_slow_evaluation_is_never_silent(
    protocol: str, data: Path, tmp_path: Path, clock: Slow, out: Stamped, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_everywhere(clock, monkeypatch)
    words = ["resnet8", "--random", "--size", "16", "--workers", "0", "--data", str(data), "--out", str(tmp_path / "o")]
    forget()
    with redirect_stdout(out), NARRATOR.during("evaluate is at work"):
        evaluate.run(evaluate.parse([protocol, *words], "evaluate"))
    forget()
    silence, after = out.longest_silence()
    assert clock.now > 100
    assert silence <= SILENCE + LOOK, after


def test_slow_mining_is_never_silent(
    data: Path, tmp_path: Path, clock: Slow, out: Stamped, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_everywhere(clock, monkeypatch)
    monkeypatch.setattr(mine_pairs, "mine", clock.slowed(80, mine_pairs.mine))
    options = mine_pairs.Options(
        model="resnet8", random=True, data=str(data), out=tmp_path / "p.parquet", size=16, workers=0
    )
    with redirect_stdout(out), NARRATOR.during("mine-pairs is at work"):
        mine_pairs.run(options)
    silence, after = out.longest_silence()
    assert silence <= SILENCE + LOOK, after
    assert any("Comparing 26 images, class by class (17 s so far)" in line for _, line in out.lines)


def test_what_is_told_often_is_not_told_twice(clock: Slow, out: Stamped) -> None:
    with redirect_stdout(out), doing("Doing something", at_once=True):
        for number in range(30):
            clock.pass_(5)
            say(f"part {number}")
    assert [line for _, line in out.lines[1:]] == ["Doing something", *(f"part {number}" for number in range(30))]
    clock.pass_(100)
    assert len(out.lines) == 32


def test_the_innermost_is_told_and_what_it_says_is_new(clock: Slow, out: Stamped) -> None:
    def items() -> Iterator[int]:
        for number in range(4):
            clock.pass_(7)
            yield number

    with redirect_stdout(out), doing("outer"):
        assert list(counted(items(), 4, "counting")) == [0, 1, 2, 3]
        clock.pass_(9)
    assert [line for _, line in out.lines[1:]] == [
        "counting: 1 of 4 (10 s so far)",
        "counting: 2 of 4 (20 s so far)",
        "outer (30 s so far)",
    ]


def test_a_thread_looks_while_a_command_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssl_backbones.narrator.SILENCE", 0.02)
    monkeypatch.setattr("ssl_backbones.narrator.LOOK", 0.01)
    narrator = Narrator()
    with narrator.watching("at work"), narrator.during("thinking"):
        deadline = time.monotonic() + HANG
        while "thinking" not in capsys.readouterr().out and time.monotonic() < deadline:
            time.sleep(0.01)
    assert time.monotonic() < deadline
    assert narrator.doing == []


def test_other_processes_are_silent(monkeypatch: pytest.MonkeyPatch, clock: Slow, out: Stamped) -> None:
    monkeypatch.setattr(distributed, "silent", lambda: True)
    with redirect_stdout(out), doing("something", at_once=True):
        assert NARRATOR.doing == []
    assert out.lines[1:] == []


def test_an_address_is_told_without_its_secrets(clock: Slow, out: Stamped) -> None:
    with redirect_stdout(out), doing("Opening https://someone:secret@example.org/photos", at_once=True):
        clock.pass_(11)
    assert len(out.lines) == 3
    assert not any("secret" in line for _, line in out.lines)


def test_a_job_is_told_by_the_last_line_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"of an earlier try\n")
    began = log.stat().st_size
    assert last_line(log, began) == "begun"
    log.write_bytes(log.read_bytes() + b"step 1\n\n")
    assert last_line(log, began) == "step 1"
