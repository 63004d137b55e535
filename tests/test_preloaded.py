"""Calls of the C library that fail, whoever makes them: commands end in a sentence, and then leave the same files."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from conftest import ROOT
from failing_disk import ERRORS
from test_failing_disk import CHEAP, Trial, stock, trial

__all__ = ["stock", "trial"]

SOURCE = ROOT / "tests" / "failing_calls.c"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
SEEDS = range(2)
TRIALS = 3
"""Runs of each seed and command."""
DRIVER = """
import ctypes, json, os, sys
shim = ctypes.CDLL(os.environ.pop("LD_PRELOAD"))
from ssl_backbones import commands
from ssl_backbones.commands import bundle, convert, embed, evaluate, mine_pairs, publish
from ssl_backbones.evaluate.protocols import knn
import ssl_backbones.locks
ssl_backbones.locks.SETTLED_AFTER = 0.01
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        said = os.open(asked["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        words = asked["words"]
        shim.arm(asked["below"].encode(), asked["fail_at"], asked["number"], asked["stays"])
        code = commands.run(words[0], words[1:], words[0])
        sys.stdout.flush()
        with open(asked["said"] + ".calls", "w") as file:
            file.write(str(shim.counted()))
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Preloaded:
    """A program that runs commands in children of its own, with calls that fail."""

    def __init__(self, library: Path, said: Path) -> None:
        self.said = said
        environment = os.environ | {
            "LD_PRELOAD": str(library),
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.pipe(self.process.stdout).readline() == "ready\n"

    @staticmethod
    def pipe(one: IO[str] | None) -> IO[str]:
        assert one is not None
        return one

    def start(self, one: Trial, fail_at: int = 0, number: int = 0, stays: bool = False) -> tuple[int, str, int]:
        """The exit code, the lines said in the end, and the number of calls that were counted."""
        asked = {"words": [one.filled(word) for word in one.words.split()], "said": str(self.said)}
        asked |= {"below": str(one.out), "fail_at": fail_at, "number": number, "stays": int(stays)}
        self.pipe(self.process.stdin).write(json.dumps(asked) + "\n")
        self.pipe(self.process.stdin).flush()
        code = int(self.pipe(self.process.stdout).readline())
        return code, self.said.read_text(), int(self.said.with_name(f"{self.said.name}.calls").read_text())


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preloaded]:
    if COMPILER is None or not sys.platform.startswith("linux"):
        pytest.skip("a shim is preloaded on Linux, where a C compiler is installed")
    place = tmp_path_factory.mktemp("preloaded")
    library = place / "failing_calls.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-Wall", "-o", library, SOURCE, "-ldl"], check=True)
    found = Preloaded(library, place / "said")
    yield found
    Preloaded.pipe(found.process.stdin).close()
    assert found.process.wait() == 0
    Preloaded.pipe(found.process.stdout).close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CHEAP)
def test_any_call_of_any_library_may_fail(
    name: str, seed: int, preloaded: Preloaded, trial: Callable[[str], Trial]
) -> None:
    stream = random.Random(f"{seed} {name}")
    one = trial(CHEAP[name])
    one.anew()
    code, said, calls = preloaded.start(one)
    assert (code, calls > 3) == (0, True), said
    wanted = one.left()
    for _ in range(TRIALS):
        fail_at, number, stays = stream.randint(1, calls), stream.choice(ERRORS), stream.random() < 0.5
        where = f"{name}, call {fail_at} of {calls}, {os.strerror(number)}, {'all' if stays else 'one'}"
        one.anew()
        code, said, _ = preloaded.start(one, fail_at, number, stays)
        assert code in (0, 2), f"{where}: {code} {said}"
        assert "Traceback" not in said, f"{where}: {said}"
        if code:
            assert os.strerror(number) in said.splitlines()[-1], f"{where}: {said}"
            again, said, _ = preloaded.start(one)
            assert again == 0, f"{where}, then: {said}"
        assert one.left() == wanted, where


@pytest.mark.slow
def test_the_shim_fails_where_it_is_told_to(preloaded: Preloaded, trial: Callable[[str], Trial]) -> None:
    """Every call from the first on: nothing is left."""
    one = trial(CHEAP["convert"])
    one.anew()
    code, said, calls = preloaded.start(one, 1, ERRORS[0], stays=True)
    assert (code, one.left()) == (2, {})
    assert os.strerror(ERRORS[0]) in said
    assert calls >= 1
