"""A lock belongs to one process, ends with it, and harms no file that a link names."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from test_files import LIGHT

from ssl_backbones import locks
from ssl_backbones.locks import Lock, LockedError, may_be_alive

HOLDER = f"""{LIGHT}
import fcntl, os, time
from contextlib import suppress
from pathlib import Path
from ssl_backbones.locks import Lock, LockedError
if "without" in sys.argv:
    def unsupported(*_):
        raise OSError(95, "Operation not supported")
    fcntl.lockf = unsupported
try:
    lock = Lock(Path(sys.argv[1]))
except LockedError as error:
    print("refused", flush=True)
    sys.exit()
if "fork" in sys.argv and os.fork() == 0:
    time.sleep(600)
print("taken", flush=True)
sys.stdin.readline()
if "release" in sys.argv:
    lock.release()
    print("released", flush=True)
    sys.stdin.readline()
"""


def started(path: Path, *more: str) -> subprocess.Popen[str]:
    """A process that takes the lock, says what came of it, and waits for a line."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ended(process: subprocess.Popen[str]) -> None:
    """Kill a process and what it forked."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_lock_is_one_processs_until_it_is_dead(tmp_path: Path) -> None:
    process = started(tmp_path / ".lock")
    try:
        assert said(process) == "taken"
        with pytest.raises(LockedError, match=f"process {process.pid} on {socket.gethostname()}") as caught:
            Lock(tmp_path / ".lock")
        assert caught.value.owner.keys() == {"pid", "host", "since"}
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        Lock(tmp_path / ".lock").release()
    finally:
        ended(process)


def test_a_fork_does_not_hold_it(tmp_path: Path) -> None:
    process = started(tmp_path / ".lock", "fork")
    try:
        assert said(process) == "taken"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        Lock(tmp_path / ".lock").release()
    finally:
        ended(process)


def test_release_lets_another_in(tmp_path: Path) -> None:
    process = started(tmp_path / ".lock", "release")
    try:
        assert said(process) == "taken"
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert said(process) == "released"
        Lock(tmp_path / ".lock").release()
        assert (tmp_path / ".lock").read_bytes() == b""
    finally:
        ended(process)


def test_of_several_at_once_without_locks_of_the_system_one_gets_it(tmp_path: Path) -> None:
    processes = [started(tmp_path / ".lock", "without") for _ in range(3)]
    try:
        assert sorted(map(said, processes)) == ["refused", "refused", "taken"]
    finally:
        for process in processes:
            ended(process)


NOTES: list[Any] = [
    *(None, [], {}, {"pid": "7"}, {"pid": 1.5}, {"pid": True}, {"pid": -1}, {"pid": 0}, {"pid": 10**30}),
    *({"pid": None}, {"host": "far"}, {"pid": [1]}),
]


@pytest.mark.parametrize("note", NOTES, ids=repr)
@pytest.mark.parametrize("locking", [True, False])
def test_a_note_of_any_form_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, note: Any, locking: bool
) -> None:
    if isinstance(note, dict) and "pid" in note:
        note["host"] = socket.gethostname()
    (tmp_path / ".lock").write_text(json.dumps(note))

    def unsupported(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    if not locking:
        monkeypatch.setattr(fcntl, "lockf", unsupported)
        monkeypatch.setattr(locks, "SETTLED_AFTER", 0.0)
    lock = Lock(tmp_path / ".lock")
    assert lock.note()["pid"] == os.getpid()
    lock.release()


def test_who_may_be_alive() -> None:
    here = socket.gethostname()
    assert may_be_alive({"pid": os.getppid(), "host": here})
    assert may_be_alive({"pid": 1, "host": here})
    assert may_be_alive({"pid": 3, "host": "far"})
    assert not may_be_alive({"pid": os.getpid(), "host": here})
    assert may_be_alive({"pid": os.getpid(), "host": "far"}), "another container's process may have the same number"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert not may_be_alive({"pid": gone.pid, "host": here})


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    for target in (precious, tmp_path / "not yet"):
        (tmp_path / ".lock").unlink(missing_ok=True)
        (tmp_path / ".lock").symlink_to(target)
        with pytest.raises(OSError, match="it is a link, and nothing is written through links"):
            Lock(tmp_path / ".lock")
    assert precious.read_text() == "precious"
    assert not (tmp_path / "not yet").exists()


@pytest.mark.parametrize("kind", ["a pipe", "a folder"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    (os.mkfifo if kind == "a pipe" else os.mkdir)(tmp_path / ".lock")
    with pytest.raises(OSError, match=r"no regular file|Is a directory"):
        Lock(tmp_path / ".lock")
