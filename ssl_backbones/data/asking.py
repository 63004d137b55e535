"""File systems behind addresses, through fsspec: asked patiently, again where another try may help, and with a limit.

Credentials are those that the libraries find by their own means: the environment, and files of their own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from ssl_backbones.credentials import public
from ssl_backbones.data.images import ImageSourceError
from ssl_backbones.refusal import reason

T = TypeVar("T")
Call = Callable[[Any], Callable[[], Any]]
"""From a file system to a function that asks it, or to a coroutine function where the system has those."""
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}
"""Protocols that an extra of this package brings."""
WEB = ("http", "https")
PLAIN = {"Accept-Encoding": "identity"}
"""Headers for web servers: one that packs an answer would count other bytes."""

PATIENCE = 60.0
"""Seconds in which an answer, at most 4 MiB, has to arrive."""
ATTEMPTS = 4
WAIT = 1.0
"""Seconds before the second attempt; twice as many before each one after it."""
DENIED, LATER = (401, 403), (408, 425, 429)
"""Statuses of servers that mean no, and of those that mean not now."""


def protocol_of(url: str) -> str:
    """The protocol of an address."""
    return url.partition("://")[0].lower()


@cache
def renew_after_forks() -> None:
    """Let a forked process start a loop of its own; an older fsspec (2024) leaves that to those who fork."""
    from fsspec import asyn

    if hasattr(os, "register_at_fork") and not hasattr(asyn, "reset_after_fork"):
        os.register_at_fork(after_in_child=asyn.reset_lock)


def system_of(url: str) -> Any:
    """The file system behind an address, this process's own: fsspec makes another one after a fork.

    ImageSourceError for an unknown protocol, and where a package is missing.
    """
    import fsspec

    renew_after_forks()
    protocol = protocol_of(url)
    headers = {"headers": PLAIN} if protocol in WEB else {}
    try:
        kind = fsspec.get_filesystem_class(protocol)
        return kind(**kind._get_kwargs_from_urls(url), **headers, use_listings_cache=False)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        way_out = f"pip install 'ssl-backbones[{extra}]'" if extra else reason(error)
        raise ImageSourceError(
            f"{public(url)!r} cannot be opened, as a package for {protocol}:// is not installed: {way_out}"
        ) from error
    except ValueError as error:
        raise ImageSourceError(
            f"{public(url)!r} cannot be opened ({reason(error)}): give an address of hf://, "
            "s3://, gs://, http:// or https://, or a folder"
        ) from error


def function_of(system: Any, name: str) -> Callable[..., Any]:
    """A function of a file system, or the coroutine function where it has those."""
    found: Callable[..., Any] = getattr(system, f"_{name}" if system.async_impl else name)
    return found


def asked(url: str, call: Call, check: Callable[[Any], T], seconds: float | None = None) -> T:
    """The checked answer of the file system behind an address, which is asked again, each time after a longer wait.

    `seconds` is the time for an answer, PATIENCE where none is given. ImageSourceError, in a sentence, for what is not
    there or may not be read, and after the last try.
    """
    error: Exception | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(WAIT * 2 ** (attempt - 1))
        try:
            return check(in_time(system_of(url), call, seconds or PATIENCE))
        except ImageSourceError:
            raise
        except Exception as failure:  # there are as many kinds as libraries
            error = failure
            if sentence := refused(url, error):
                raise ImageSourceError(sentence) from error
    assert error is not None
    raise ImageSourceError(
        f"{public(url)!r} cannot be read ({in_words(error)}, {ATTEMPTS} times over): start the same command again when "
        "it can be reached, which goes on where this one ended, or copy the files to a disk"
    ) from error


def in_time(system: Any, call: Call, seconds: float) -> Any:
    """The answer of a file system; TimeoutError where it takes longer."""
    if system.async_impl:
        from fsspec.asyn import sync

        return sync(system.loop, call(system), timeout=seconds)
    outcome: list[Any] = []

    def ask() -> None:
        try:
            outcome.append((call(system)(), None))
        except Exception as error:
            outcome.append((None, error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError
    answer, error = outcome[0]
    if error is not None:
        raise error
    return answer


def refused(url: str, error: Exception) -> str:
    """The sentence on an error that another try would meet again; empty for any other."""
    status = status_of(error)
    if status in DENIED or any(
        isinstance(each, PermissionError) or "Credentials" in type(each).__name__ for each in causes(error)
    ):
        return (
            f"{public(url)!r} may not be read ({in_words(error)}): give the right to list and read it, by the "
            "environment or the files in which its library looks for credentials"
        )
    if status == 404 or (status is None and isinstance(error, FileNotFoundError | NotADirectoryError)):
        return f"{public(url)!r} does not exist: check the address, and what its credentials may see"
    if status is not None and 400 <= status < 500 and status not in LATER:
        return f"{public(url)!r} cannot be read ({in_words(error)}): check the address"
    return ""


def status_of(error: BaseException) -> int | None:
    """The status by which a server refused, wherever its library keeps it; None where it did not."""
    for each in causes(error):
        response = getattr(each, "response", None)
        about = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
        numbers = (getattr(each, "status", None), getattr(response, "status_code", None), about.get("HTTPStatusCode"))
        for number in numbers:
            if isinstance(number, int) and 400 <= number < 600:
                return number
    return None


def causes(error: BaseException) -> list[BaseException]:
    """The error, and those that it came from."""
    found = [error]
    while found[-1].__cause__ is not None and len(found) < 9:
        found.append(found[-1].__cause__)
    return found


def in_words(error: Exception) -> str:
    """The reason of an error in a few words."""
    if any(isinstance(each, TimeoutError) for each in causes(error)):
        return f"nothing whole came within {PATIENCE:g} seconds"
    status = status_of(error)
    if status is not None:
        return f"the server answered {status}"
    last = causes(error)[-1]
    text = reason(last)
    return text if len(text) < 200 else type(last).__name__
