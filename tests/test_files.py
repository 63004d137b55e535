"""Files are written whole or not at all and never through a link, and JSON from others is read within bounds."""

from __future__ import annotations

import builtins
import errno
import hashlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from ssl_backbones.files import (
    DEEPEST,
    LARGEST,
    UnreadableError,
    UnwritableError,
    check_writable,
    clear_leftovers,
    create_file,
    file_digest,
    make_folder,
    object_digest,
    object_in,
    read_object,
    replacing,
    without_links,
    write_file,
    write_json,
)


def in_pieces(path: Path, content: bytes) -> None:
    """Write a file as those do that make it bit by bit."""
    with replacing(path) as file:
        for start in range(0, len(content), 3):
            file.write(content[start : start + 3])


WRITERS = [write_file, in_pieces]


class Killed(BaseException):
    """Ends a write as SIGKILL would, but for what `finally` does."""


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("call", ["open", "fsync", "replace", "write"])
def test_whoever_looks_sees_the_old_content_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, bytes], None], call: str
) -> None:
    path = tmp_path / "file"
    write(path, b"the old content")
    looks = 0

    def looked(original: Callable[..., Any]) -> Callable[..., Any]:
        def observed(*arguments: Any, **named: Any) -> Any:
            nonlocal looks
            looks += 1
            with original_open(path, "rb") as file:
                assert file.read() in (b"the old content", b"something else, and longer")
            return original(*arguments, **named)

        return observed

    original_open = open
    if call == "write":
        monkeypatch.setattr(os, "fsync", looked(os.fsync))
    elif call == "open":
        monkeypatch.setattr(builtins, "open", looked(open))
    else:
        monkeypatch.setattr(os, call, looked(getattr(os, call)))
    write(path, b"something else, and longer")
    monkeypatch.undo()
    assert looks > 0
    assert path.read_bytes() == b"something else, and longer"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("error", [Killed(), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path, bytes], None],
    error: BaseException,
    call: str,
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr(os, call, fails)
    with pytest.raises((type(error), UnwritableError)) as caught:
        write(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    if isinstance(error, OSError):
        assert f"{path} could not be written (No space left on device): make room" in str(caught.value)
        assert isinstance(caught.value, UnwritableError)
        assert (caught.value.errno, caught.value.strerror) == (errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_inside_the_block_is_told_and_other_errors_are_the_blocks_own(tmp_path: Path) -> None:
    with pytest.raises(UnwritableError, match="file could not be written"), replacing(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file"):
        (tmp_path / "none").read_bytes()
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "file") as file:
        file.write(b"%d" % (1 // 0))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["no folder", "a file", "a folder"])
def test_a_place_that_cannot_hold_a_file_is_told(tmp_path: Path, place: str) -> None:
    (tmp_path / "a file").write_text("")
    path = tmp_path / place / "file"
    if place == "a folder":
        path.mkdir(parents=True)
    with pytest.raises(UnwritableError) as caught:
        write_file(path, b"")
    assert str(caught.value).startswith(f"{path} could not be written (")
    assert "\n" not in str(caught.value)


LIGHT = f"""
import sys, types
package = types.ModuleType("ssl_backbones")  # without what it imports, torch above all: a child starts at once
package.__path__ = [{str(ROOT / "ssl_backbones")!r}]
sys.modules["ssl_backbones"] = package
"""

LIMITED = f"""{LIGHT}
import resource, signal
from ssl_backbones.files import UnwritableError, write_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_file(sys.argv[1], bytes(2000))
except UnwritableError as error:
    print(error)
"""


def test_a_limit_of_the_system_leaves_the_old_file(tmp_path: Path) -> None:
    write_file(tmp_path / "file", b"old")
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "could not be written (File too large)" in done.stdout, done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_mode_is_what_the_umask_leaves(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        for name, write in (("a", write_file), ("b", in_pieces), ("c", create_file)):
            write(tmp_path / name, b"")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~mask}


# Links


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A file outside the folder that is written to: nothing may change it."""
    path = tmp_path / "elsewhere" / "precious"
    path.parent.mkdir()
    path.write_text("precious")
    (tmp_path / "ours").mkdir()
    return path


@pytest.mark.parametrize("write", WRITERS)
def test_a_link_is_replaced_and_not_followed(tmp_path: Path, elsewhere: Path, write: Callable[..., None]) -> None:
    path = tmp_path / "ours" / "file"
    for target in (elsewhere, elsewhere.parent / "not yet"):
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        write(path, b"new")
        assert not path.is_symlink()
        assert path.read_bytes() == b"new"
    assert [entry.read_text() for entry in elsewhere.parent.iterdir()] == ["precious"]


@pytest.mark.parametrize("write", [*WRITERS, lambda path, content: check_writable(path.parent)])
def test_a_private_name_that_was_guessed_is_not_followed(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., None]
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / "ours" / ".tmp-guessed").symlink_to(elsewhere)
    with pytest.raises(OSError, match="File exists"):
        write(tmp_path / "ours" / "file", b"new")
    assert elsewhere.read_text() == "precious"


def test_a_new_file_is_none_that_was_there(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "ours" / "file").symlink_to(elsewhere.parent / "not yet")
    for path in (elsewhere, tmp_path / "ours" / "file"):
        with pytest.raises(FileExistsError):
            create_file(path, b"new")
    assert [entry.read_text() for entry in elsewhere.parent.iterdir()] == ["precious"]


@pytest.mark.parametrize("mode", ["ab", "r+b", "wb"])
def test_what_grows_is_not_opened_through_a_link(tmp_path: Path, elsewhere: Path, mode: str) -> None:
    (tmp_path / "ours" / "file").symlink_to(elsewhere)
    with pytest.raises(OSError, match="it is a link, and nothing is written through links"):
        open(tmp_path / "ours" / "file", mode, opener=without_links)  # noqa: SIM115
    assert elsewhere.read_text() == "precious"
    with open(tmp_path / "ours" / "other", "ab", opener=without_links) as file:
        file.write(b"one")
    with open(tmp_path / "ours" / "other", "ab", opener=without_links) as file:
        file.write(b"two")
    assert (tmp_path / "ours" / "other").read_bytes() == b"onetwo"


def test_a_folder_of_ours_is_no_link(tmp_path: Path, elsewhere: Path) -> None:
    for target in (elsewhere.parent, tmp_path / "not yet"):
        (tmp_path / "ours" / "inside").unlink(missing_ok=True)
        (tmp_path / "ours" / "inside").symlink_to(target)
        with pytest.raises(OSError, match="it is a link"):
            make_folder(tmp_path / "ours" / "inside")
    make_folder(tmp_path / "ours" / "deep" / "new")
    make_folder(tmp_path / "ours" / "deep" / "new")


# Leftovers


def test_leftovers_go_and_what_they_link_to_stays(tmp_path: Path, elsewhere: Path) -> None:
    ours = tmp_path / "ours"
    (ours / ".tmp-0123456789abcdef").write_text("half")
    (ours / ".tmp-recipe.json").symlink_to(elsewhere)
    (ours / ".tmp-folder").mkdir()
    (ours / "file").write_text("whole")
    clear_leftovers(ours)
    assert sorted(path.name for path in ours.iterdir()) == [".tmp-folder", "file"]
    assert elsewhere.read_text() == "precious"
    clear_leftovers(ours / "none")


def test_leftovers_of_a_shared_folder_go_when_they_are_old(tmp_path: Path) -> None:
    for name, age in (("old", 7200), ("new", 60)):
        (tmp_path / f".tmp-{name}").write_text("")
        os.utime(tmp_path / f".tmp-{name}", (time.time() - age,) * 2)
    clear_leftovers(tmp_path, before=time.time() - 3600)
    assert [path.name for path in tmp_path.iterdir()] == [".tmp-new"]


# Digests


@given(st.binary(max_size=100))
def test_a_digest_is_that_of_the_content(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("digest") / "file"
    path.write_bytes(content)
    assert file_digest(path) == hashlib.sha256(content).hexdigest()
    assert file_digest(path, "md5") == hashlib.md5(content).hexdigest()


def test_an_object_is_sealed_by_a_digest_of_all_but_itself() -> None:
    sealed = {"b": [1, 2.5], "a": None}
    digest = object_digest(sealed)
    assert digest == hashlib.sha256(b'{"a": null, "b": [1, 2.5]}').hexdigest()
    assert object_digest(sealed | {"sha256": digest}) == digest
    assert object_digest(sealed | {"a": 0}) != digest


# JSON

finite_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), finite_json, max_size=3))
def test_what_is_written_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("json") / "file.json"
    write_json(path, value)
    assert read_object(path, "never") == value


def test_nan_is_not_written(tmp_path: Path) -> None:
    write_json(tmp_path / "file.json", {"a": 1})
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON compliant"):
            write_json(tmp_path / "file.json", {"a": value})
    assert read_object(tmp_path / "file.json", "never") == {"a": 1}


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    """An object with so many levels, itself one."""
    return (f'{{"a": {opening * (depth - 1)}{closing * (depth - 1)}' + "}").encode()


HOSTILE = {
    "empty": (b"", "it is no JSON: Expecting value: line 1 column 1"),
    "half": (b'{"a": [1, 2', "it is no JSON: "),
    "zeros": (bytes(1000), "it is no JSON: "),
    "not UTF-8": (b'{"a": "\xff\xfe"}', "it is not written in UTF-8"),
    "a list": (b"[1, 2]", "it holds no object"),
    "a number": (b"7", "it holds no object"),
    "null": (b"null", "it holds no object"),
    "NaN": (b'{"a": [NaN]}', "it holds NaN, which is no number of JSON"),
    "infinity": (b'{"a": -Infinity}', "it holds -Infinity"),
    "infinite by digits": (b'{"a": 1e999}', "a number that is too large, 1e999"),
    "beyond 64 bits": (b'{"a": 18446744073709551616}', "a number that is too large, 18446744073709551616"),
    "too many digits": (b'{"a": ' + b"9" * 5000 + b"}", "a number that is too large, 999"),
    "deep lists": (nested(DEEPEST + 1), f"nested more than {DEEPEST} deep"),
    "deep objects": (nested(100, '{"a": ', "}").replace(b": }", b": 0}"), f"nested more than {DEEPEST} deep"),
    "very deep": (nested(200_000), f"nested more than {DEEPEST} deep"),
    "deep and unclosed": (b"[" * 200_000, f"nested more than {DEEPEST} deep"),
    "two values": (b"{} {}", "it is no JSON: Extra data"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_json_is_one_sentence(tmp_path: Path, name: str) -> None:
    content, told = HOSTILE[name]
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(UnreadableError) as caught:
        read_object(path, "make it anew")
    assert str(caught.value).startswith(f"{path} cannot be read (")
    assert str(caught.value).endswith("): make it anew")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_at_the_limit_of_depth_is_read() -> None:
    assert object_in(nested(DEEPEST))
    assert object_in(b'{"a": [NaN, -Infinity, 1e999]}', any_number=True)["a"][1:] == [-math.inf, math.inf]
    assert object_in(b'{"' + b"[" * 500 + b'": "' + b"{" * 500 + b'"}')


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    with open(path, "wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(UnreadableError, match=r"it has more than the 67,108,864 bytes that such a file may have"):
        read_object(path, "make it anew")
    path.write_bytes(b'{"a": 12345}')
    assert read_object(path, "never", largest=12) == {"a": 12345}
    with pytest.raises(UnreadableError, match="more than the 11 bytes"):
        read_object(path, "make it anew", largest=11)


class OurError(RuntimeError):
    """An error of a caller's own."""


@pytest.mark.parametrize("kind", ["missing", "a folder", "a pipe", "a circle of links"])
def test_what_is_no_file_is_one_sentence_of_the_callers(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file.json"
    makers: dict[str, Callable[[], None]] = {
        "missing": lambda: None,
        "a folder": path.mkdir,
        "a pipe": lambda: os.mkfifo(path),
        "a circle of links": lambda: path.symlink_to(path),
    }
    makers[kind]()
    with pytest.raises(OurError, match=r"^.*file\.json cannot be read \(.+\): make it anew$"):
        read_object(path, "make it anew", OurError)


@given(st.binary(max_size=40) | st.text(max_size=40) | st.just(json.dumps({"a": [1, {"b": 2.5}]})), st.data())
def test_anything_is_an_object_or_a_value_error(content: bytes | str, data: st.DataObject) -> None:
    if content:
        at = data.draw(st.integers(0, len(content) - 1))
        content = content[:at] + content[at + 1 :]
    with suppress(ValueError):
        assert isinstance(object_in(content), dict)
