"""Commands that are killed at random moments, fail at random calls, meet links, or run two at once: fixed seeds."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from failing_disk import ERRORS, Disk
from limits import HANG
from test_cleanup import COMMAND
from test_failing_disk import CHEAP, PRETRAIN, Trial, stock, trial
from warm_processes import start_program

__all__ = ["stock", "trial"]

SEEDS = range(3)
TRIALS = 8
"""Cases of each seed and kind."""
WITHOUT_LOCKS = """
import errno, fcntl, os
def lockf(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.lockf = lockf
"""


def begun(source: str, one: Trial, words: str) -> tuple[BaseProcess, Path]:
    """A process that does what the words say, and the file of what it says."""
    said = one.out.with_name(f"said-{time.monotonic_ns()}")
    filled = [one.filled(word) for word in words.split()]
    return start_program(source, *filled, said=[said, said]), said


def reference(one: Trial) -> tuple[dict[str, object], int]:
    """The files of a command that nothing disturbs, and the calls that it makes."""
    one.anew()
    counted = Disk(one.out)
    code, said = one.start(counted)
    assert code == 0, said
    return one.left(), len(counted.calls)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_random_moments_and_started_again(seed: int, trial: Callable[[str], Trial]) -> None:
    stream = random.Random(seed)
    for _ in range(TRIALS):
        name = stream.choice(list(CHEAP))
        one = trial(CHEAP[name])
        wanted, _ = reference(one)
        one.anew()
        process, _ = begun(COMMAND, one, CHEAP[name])
        time.sleep(stream.random() * 3)
        if not one.left():
            time.sleep(stream.random())
        process.kill()
        process.join()
        if one.left() != wanted:
            assert one.start() == (0, ""), name
        assert one.left() == wanted, name


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_random_calls_fail(seed: int, trial: Callable[[str], Trial]) -> None:
    stream = random.Random(seed)
    for _ in range(TRIALS):
        name = stream.choice(list(CHEAP))
        one = trial(CHEAP[name])
        wanted, calls = reference(one)
        one.anew()
        disk = Disk(one.out, stream.randint(1, calls), stream.choice(ERRORS), stays=stream.random() < 0.5)
        code, said = one.start(disk)
        if code:
            assert (code, said.count("\n")) == (2, 1), said
            assert one.start()[0] == 0
        assert one.left() == wanted, (name, disk.fail_at)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_written_through_links(seed: int, trial: Callable[[str], Trial], tmp_path: Path) -> None:
    stream = random.Random(seed)
    for number in range(TRIALS):
        name = stream.choice(list(CHEAP))
        one = trial(CHEAP[name])
        wanted, _ = reference(one)
        places = [path for path in one.out.rglob("*") if path.is_file()]
        outside = tmp_path / f"outside-{number}"
        outside.mkdir()
        (outside / "file").write_bytes(b"somebody's")
        place = stream.choice(places).relative_to(one.out)
        one.anew()
        (one.out / place).parent.mkdir(parents=True, exist_ok=True)
        to = stream.choice(["file", "missing"])
        (one.out / place).symlink_to(outside / to)
        code, said = one.start()
        assert code in (0, 2), said
        assert (outside / "file").read_bytes() == b"somebody's", (name, place)
        assert not (outside / "missing").exists(), (name, place)
        if code == 0:
            assert one.left() == wanted, (name, place)
        shutil.rmtree(one.out)


@pytest.mark.slow
@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_two_at_once_do_not_refuse_or_spoil_one_another(
    seed: int, locks: bool, trial: Callable[[str], Trial], tmp_path: Path
) -> None:
    """Evaluations that keep the same features, and runs that make the same cache of images."""
    stream = random.Random(seed)
    source = COMMAND if locks else WITHOUT_LOCKS + COMMAND
    for words in (
        "evaluate knn {model} --size 16 --workers 0 --data {labelled} --out {out}/OWN --cache {out}/kept",
        f"pretrain {PRETRAIN} --data {{images}} --out {{out}}/OWN --cache {{out}}/kept",
    ):
        one = trial(words)
        one.anew()
        assert one.start()[0] == 0
        wanted = {place: content for place, content in one.left().items() if place.startswith("kept")}
        assert wanted
        one.anew()
        both = []
        for own in ("first", "second"):
            both.append(begun(source, one, words.replace("OWN", own)))
            time.sleep(stream.choice([0, 0, 0.2, 1]) * stream.random())
        for process, _ in both:
            process.join(HANG)
        assert [process.exitcode for process, _ in both] == [0, 0], [said.read_text() for _, said in both]
        left = one.left()
        assert {place: content for place, content in left.items() if place.startswith("kept")} == wanted
        for part in ("first", "second"):
            assert f"{part}/results.json" in left
