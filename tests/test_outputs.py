"""Files and folders that a command leaves whole, whenever it is killed: the same command then makes them."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from limits import HANG
from warm_processes import start_program

from ssl_backbones.cleanup import new_folder
from ssl_backbones.files import UnwritableError, write_file
from ssl_backbones.outputs import NOTE, OutputError, check_output, together

KILLED = """
import os, sys
from pathlib import Path
from ssl_backbones.files import write_file
from ssl_backbones.{module} import {name}
out = Path(sys.argv[1])
with {name}({given}) as folder:
    write_file((folder or out) / "one", b"half")
    (out.parent / "written").touch()
    import time
    time.sleep(600)
"""


def killed_in(module: str, name: str, given: str, out: Path) -> None:
    """Kill a process inside such a block, when it has written the first of its files."""
    source = KILLED.format(module=module, name=name, given=given)
    process = start_program(source, str(out), said=[out.parent / "said"] * 2)
    give_up = time.monotonic() + HANG
    while not (out.parent / "written").exists():
        assert process.is_alive(), (out.parent / "said").read_text()
        assert time.monotonic() < give_up
        time.sleep(0.01)
    process.kill()
    process.join()


def test_files_of_a_killed_command_are_replaced_and_those_of_others_are_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "three").write_bytes(b"somebody's")
    killed_in("outputs", "together", "[out / name for name in ('one', 'two', 'three')]", out)
    for name in ("one", "two"):
        check_output(out / name, overwrite=False)
    with pytest.raises(OutputError, match="three' exists"):
        check_output(out / "three", overwrite=False)
    with together([out / name for name in ("one", "two", "three")]):
        check_output(out / "one", overwrite=False)
        for name in ("one", "two"):
            write_file(out / name, b"whole")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        "one": b"whole",
        "two": b"whole",
        "three": b"somebody's",
    }
    with pytest.raises(OutputError, match="one' exists"):
        check_output(out / "one", overwrite=False)


LATER = 2 * 10**18
"""A time of change in ns, long after a test, which may begin and end within one tick of a file system's clock."""


def edited(path: Path) -> None:
    path.write_bytes(b"mine")
    os.utime(path, ns=(LATER, LATER))


def replaced(path: Path) -> None:
    path.unlink()
    edited(path)


def copied_over(path: Path) -> None:
    shutil.copy2(path, path.with_name("copy"))
    os.replace(path.with_name("copy"), path)


def linked(path: Path) -> None:
    os.rename(path, path.with_name("real"))
    path.symlink_to("real")


def beside(path: Path) -> None:
    path.with_name("two").write_bytes(b"half")


@pytest.mark.parametrize("changed", [edited, replaced, copied_over, linked, beside], ids=lambda change: change.__name__)
def test_a_note_that_was_left_frees_no_file_but_the_one_that_was_written(
    changed: Callable[[Path], None], tmp_path: Path
) -> None:
    """Months after a command was killed, its note still lies there, and the names in it are somebody's files."""
    with together([tmp_path / "one", tmp_path / "two"]):
        write_file(tmp_path / "one", b"half")
        left = {note: note.read_bytes() for note in tmp_path.glob(f"{NOTE}*")}
    for note, content in left.items():
        note.write_bytes(content)
    check_output(tmp_path / "one", overwrite=False)
    changed(tmp_path / "one")
    with pytest.raises(OutputError, match="exists"):
        check_output(tmp_path / ("two" if changed is beside else "one"), overwrite=False)


def test_what_was_left_stays_free_where_the_next_command_is_killed_too(tmp_path: Path) -> None:
    """After its first file, then after its second, and last between the note of a file and the file."""
    one, two = tmp_path / "one", tmp_path / "two"
    for name in ("one", "two"):
        with together([one, two]):
            write_file(tmp_path / name, b"half")
            (note,) = tmp_path.glob(f"{NOTE}*")
            content = note.read_bytes()
        note.write_bytes(content)
    with together([one, two]):
        before = one.lstat()
        os.link(one, tmp_path / "kept")
        write_file(one, b"next")
        content = note.read_bytes()
    note.write_bytes(content)
    check_output(one, overwrite=False)
    os.replace(tmp_path / "kept", one)
    assert one.lstat().st_ino == before.st_ino
    for path in (one, two):
        assert path.read_bytes() == b"half"
        check_output(path, overwrite=False)


def test_an_error_takes_all_new_files_along(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"before")
    with pytest.raises(IsADirectoryError), together([tmp_path / "old", tmp_path / "new"]):
        (tmp_path / "new").write_bytes((tmp_path / "old").read_bytes() + tmp_path.read_bytes())
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"new": ["one"]}', '{"written": 3}', '{"written": {"one": 3}}', '{"written": {"one": [[1]]}}'],
)
def test_a_note_of_another_form_frees_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    (tmp_path / f"{NOTE}x").write_text(content)
    with pytest.raises(OutputError, match="exists"):
        check_output(tmp_path / "one", overwrite=False)


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_is_there_as_a_whole_or_not_at_all(there: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if there:
        out.mkdir()
    killed_in("cleanup", "new_folder", "out", out)
    give_up = time.monotonic() + HANG
    while list(tmp_path.glob(".tmp-*")):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert not out.exists() or not list(out.iterdir())
    before = os.umask(0o027)
    try:
        with new_folder(out) as folder:
            (folder / "one").write_bytes(b"whole")
            assert not out.exists() or not list(out.iterdir())
    finally:
        os.umask(before)
    assert [path.name for path in out.iterdir()] == ["one"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o750
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "said", "written"]


def test_what_cannot_be_written_is_told_by_the_name_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UnwritableError) as caught, new_folder(tmp_path / "out") as folder:
        write_file(folder / "missing" / "file", b"")
    assert str(tmp_path / "out" / "missing" / "file") in str(caught.value)
    assert ".tmp-" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
