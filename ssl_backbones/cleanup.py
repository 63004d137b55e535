"""Cleans up after a process however it ends: the processes that it started stop, and its temporary folders go."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from typing import BinaryIO

from ssl_backbones.files import PRIVATE, UnwritableError, sync_folder, telling

GRACE = 60
"""Seconds that a process without its parent has for saving what it did."""
PYTHON = (sys.executable, "-I", "-S", "-c")

REMOVE = """
import shutil, sys
sys.stdin.buffer.read()
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""
"""Deletes a folder as soon as the other end of its standard input is closed, by hand or by the end of a process."""

LEAD = """
import os, select, signal, subprocess, sys, threading, time

def stop():
    sys.stdin.buffer.read()
    until = time.monotonic() + float(sys.argv[1])
    number = signal.SIGTERM
    try:
        while True:
            os.killpg(child.pid, number)
            while time.monotonic() < until:
                os.killpg(child.pid, 0)
                time.sleep(0.05)
            number = signal.SIGKILL
            until += 5
    except (ProcessLookupError, PermissionError):
        pass

child = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, start_new_session=True)
stopping = threading.Thread(target=stop, daemon=True)
stopping.start()
code = child.wait()
if select.select([0], [], [], 0)[0]:
    stopping.join(float(sys.argv[1]) + 10)
os._exit(code if code >= 0 else 128 - code)
"""
"""Runs a command; once its standard input is closed, asks all the processes of that command to stop, then ends them."""


@contextmanager
def private_folder(prefix: str, beside: Path | None = None) -> Iterator[Path]:
    """A new folder for temporary files, which is deleted after the block, or when this process is killed in it.

    It lies `beside` something that it is made for, or with all other temporary files.
    """
    path = Path(tempfile.gettempdir() if beside is None else beside.parent) / f"{prefix}{secrets.token_hex(8)}"
    with subprocess.Popen(
        [*PYTHON, REMOVE, str(path)], stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True
    ):
        try:
            path.mkdir(mode=0o700)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def is_new_or_empty(path: Path) -> bool:
    """True for a path where nothing is yet, or an empty folder: one that `new_folder` can make."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A private folder to write to, which takes the place of `path`, new or empty, once the block has ended well.

    Whoever looks sees all of it or nothing; after an error, and where this process is killed, nothing is left of it.
    Raises UnwritableError where the system cannot make it.
    """
    path = Path(path).resolve()
    with telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with private_folder(PRIVATE, beside=path) as private:
        made = private / path.name
        try:
            with telling(path):
                made.mkdir()
            yield made
            with telling(path):
                if path.exists():
                    path.rmdir()
                os.rename(made, path)
                try:
                    sync_folder(path.parent)
                except OSError:
                    shutil.rmtree(path, ignore_errors=True)  # or the same command would refuse what this one left
                    raise
        except UnwritableError as error:
            raise UnwritableError(
                error.errno, error.strerror, str(error.filename).replace(str(made), str(path))
            ) from error


def run_to_end(words: Sequence[str], log: BinaryIO, grace: float = GRACE) -> int:
    """The exit code of a command that says what it says into a file; it is stopped where this process ends before it.

    128 and more stand for the signal that ended it, as in a shell.
    """
    lead = [*PYTHON, LEAD, str(grace), *words]
    process = subprocess.Popen(lead, stdin=PIPE, stdout=log, stderr=STDOUT, start_new_session=True)
    try:
        return process.wait()
    finally:
        assert process.stdin
        process.stdin.close()  # after an error, such as Ctrl-C, the command stops, and this waits for it
        process.wait()
