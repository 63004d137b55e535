"""Files written whole or not at all and never through a link, read within bounds, and known by their digests."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

from ssl_backbones.refusal import Refusal, reason

PRIVATE = ".tmp-"
"""The beginning of the names of files that are being written; one that is left over was killed in the making."""
LARGEST = 64 * 2**20
"""Bytes of JSON that are read unless a caller expects more."""
DEEPEST = 64
"""Objects and lists that may lie within one another in such a file."""
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


class UnwritableError(Refusal, OSError):
    """A file that could not be written, with the system's reason in `strerror`."""

    def __str__(self) -> str:
        return (
            f"{self.filename} could not be written ({self.strerror}): make room or mend the folder, and start the same "
            "command again"
        )


class UnreadableError(Refusal, ValueError):
    """A file that cannot be read, or holds something else than it should; the message says why and what to do."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A new file to write to, which takes the place of `path` once the block has ended without an error.

    Whoever looks sees the old content or the new, never a part. The new file has a private name in the same folder
    (`file.name`) and replaces a link that lies at `path` instead of following it. Raises UnwritableError where the
    system cannot write it; after any error inside the block the old file is there unchanged.
    """
    path = Path(path)
    private = path.with_name(f"{PRIVATE}{secrets.token_hex(8)}")
    try:
        with telling(path):
            file = open(private, "xb")  # noqa: SIM115 - exclusively: a link of that name is an error, not followed
        with telling(path, DISK_ERRORS), file:  # closing it writes what is left, and may fail too
            yield file
            with telling(path):
                file.flush()
                os.fsync(file.fileno())
        with telling(path), kept_with_all([path]):
            _LISTENER.get()(path, private.stat())
            os.replace(private, path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            private.unlink()


_LISTENER: ContextVar[Callable[[Path, os.stat_result], object]] = ContextVar("listener", default=lambda *_: None)


@contextmanager
def announced(listener: Callable[[Path, os.stat_result], object]) -> Iterator[None]:
    """Tell `listener` of each file that this block writes, just before it is there: its place and its state."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def kept_with_all(paths: Iterable[Path]) -> Iterator[None]:
    """Delete, after an error in the block, what of these files was not there before it, for a command to begin anew."""
    new = [path for path in paths if not os.path.lexists(path)]
    try:
        yield
    except BaseException:
        for path in new:
            with suppress(OSError):
                path.unlink()
        raise


def told(error: OSError) -> str:
    """The sentence on an error of the system that ends a command: the file, the reason and the way out."""
    if isinstance(error, Refusal) or error.errno is None:
        return (
            str(error) or f"a file cannot be used ({type(error).__name__}): look whether all that were named are there"
        )
    return (
        f"{error.filename or 'a file'} cannot be used ({error.strerror}): make room, or mend the file or its folder, "
        "and start the same command again"
    )


@contextmanager
def telling(path: Path, numbers: Container[int | None] | None = None) -> Iterator[None]:
    """Turn the system's errors, or those of these numbers, into UnwritableError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, UnwritableError) or (numbers is not None and error.errno not in numbers):
            raise
        raise UnwritableError(error.errno, reason(error), str(path)) from error


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Put a file in place whole or not at all, on the disk when this returns; its mode is 0666 less the umask.

    Raises UnwritableError.
    """
    with replacing(path) as file, telling(Path(path)):
        file.write(content)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Put a value in place as JSON that reads back equal; ValueError for NaN and infinity, which JSON lacks."""
    write_file(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def create_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file that must not be there yet, in a folder that gets its own name only when it is complete."""
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def without_links(path: str, flags: int) -> int:
    """Open a file for `open(path, mode, opener=without_links)`; OSError where its name is a symbolic link or a pipe."""
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe would be waited for
    try:
        return os.open(path, flags | careful, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link, and nothing is written through links", path) from error
        raise


def make_folder(path: Path) -> None:
    """Make a folder inside one of ours, or take the one that is there; OSError where a link leads out of ours."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link, and nothing is written through links", str(path))
    path.mkdir(parents=True, exist_ok=True)


def check_writable(folder: Path) -> None:
    """Make a folder and try to write a file to it; OSError where that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    private = folder / f"{PRIVATE}{secrets.token_hex(8)}"
    try:
        create_file(private, bytes(4096))
    finally:
        with suppress(OSError):
            private.unlink()


def clear_leftovers(folder: Path, before: float = math.inf) -> None:
    """Delete what killed processes left half written in a folder, where it was last changed before a time in seconds.

    Without a time, the folder has to be this process's own: another could be writing there. Folders are left alone.
    """
    for path in folder.glob(f"{PRIVATE}*"):
        with suppress(OSError):
            state = path.lstat()
            if state.st_mtime < before and not stat.S_ISDIR(state.st_mode):
                path.unlink()


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name != "posix":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems keep names by themselves, and refuse to be asked
            raise
    finally:
        os.close(descriptor)


def file_digest(path: str | os.PathLike[str], kind: str = "sha256") -> str:
    """The digest of a file's content in hexadecimal digits; of md5 no safety is expected."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def object_digest(sealed: Mapping[str, Any]) -> str:
    """The sha256 of a JSON object without its own entry "sha256"; every schema keeps this rule."""
    content = {key: value for key, value in sealed.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_object(
    path: str | os.PathLike[str],
    way_out: str,
    refusal: type[Exception] = UnreadableError,
    largest: int = LARGEST,
    any_number: bool = False,
    check: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    """The object in a JSON file; `refusal` with a sentence that names the file, what is wrong, and the way out.

    With `any_number`, it may hold NaN and infinity, which JSON lacks and some programs write. `check` raises ValueError
    for an object that is not what the file should hold.
    """
    try:
        value = object_in(content_of(Path(path), largest), any_number)
        if check:
            check(value)
        return value
    except (OSError, ValueError) as error:
        raise refusal(f"{os.fspath(path)} cannot be read ({reason(error)}): {way_out}") from error


def regular(path: Path) -> Path:
    """The path, of a regular file; OSError for a pipe or a device, whose content would never end, or never come."""
    if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path


def content_of(path: Path, largest: int = LARGEST) -> bytes:
    """The bytes of a regular file; ValueError where they are more than `largest`, OSError where it is none."""
    with open(regular(path), "rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it has more than the {largest:,} bytes that such a file may have")
    return content


def object_in(content: bytes | str, any_number: bool = False) -> dict[str, Any]:
    """The object that is written as JSON; ValueError says why it is none."""
    value = value_in(content, any_number)
    if not isinstance(value, dict):
        raise ValueError("it holds no object")
    return value


def value_in(content: bytes | str, any_number: bool = False) -> Any:
    """The value that is written as JSON; ValueError says why it is none: not JSON, not finite, nested too deep."""
    try:
        checks: dict[str, Any] = (
            {} if any_number else {"parse_constant": not_finite, "parse_float": finite, "parse_int": whole}
        )
        value = json.loads(content, **checks)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is no JSON: it is not written in UTF-8") from error
    except RecursionError as error:
        raise ValueError(f"it is nested more than {DEEPEST} deep") from error
    check_depth(value)
    return value


def not_finite(name: str) -> float:
    """Refuse a number that JSON lacks."""
    raise ValueError(f"it holds {name}, which is no number of JSON")


def finite(digits: str) -> float:
    """The number; ValueError where it is too large to be one."""
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"it holds a number that is too large, {digits[:20]}")
    return number


def whole(digits: str) -> int:
    """The whole number; ValueError where no program that computes with 64 bits could have written it."""
    if len(digits) > 20 or not -(2**63) <= (number := int(digits)) < 2**64:
        raise ValueError(f"it holds a number that is too large, {digits[:20]}")
    return number


def check_depth(value: Any) -> None:
    """Refuse a JSON value that later code, which walks through it by recursion, would not get to the end of."""
    level = [value]
    for _ in range(DEEPEST + 1):
        wholes = [part for part in level if isinstance(part, dict | list)]
        if not wholes:
            return
        level = [part for whole in wholes for part in (whole.values() if isinstance(whole, dict) else whole)]
    raise ValueError(f"it is nested more than {DEEPEST} deep")
