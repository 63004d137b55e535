"""One file over HTTP, never waited for long."""

from __future__ import annotations

import threading
import time
from http.client import HTTPException, HTTPResponse
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

PATIENCE = 15.0
"""Seconds for an answer, names and all addresses included, and without any byte after that."""
SLOWEST = 1024
"""Bytes a second on average, below which a transfer is given up after that time."""
PIECE = 1 << 20


class DownloadError(RuntimeError):
    """The reason why a file could not be fetched, in a few words."""


def download(url: str, file: BinaryIO) -> None:
    """Fetch what lies at an address into an open file; DownloadError if it does not come whole."""
    try:
        response = _opened(url)
        with response:
            received = _copy(response, file)
        declared = response.headers.get("Content-Length")
        if declared is not None and received != int(declared):
            raise DownloadError(f"the transfer was cut after {received} of {declared} bytes")
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, HTTPError):
            error.close()  # it is the answer as well, with its connection
        raise DownloadError(_reason(error)) from error


def _opened(url: str) -> HTTPResponse:
    """The answer to a request, or TimeoutError: a name with many addresses would else be tried for minutes."""
    if not url.startswith(("http://", "https://")):
        raise DownloadError("the address is not one of http or https")
    outcome: list[HTTPResponse | Exception] = []
    given_up = threading.Event()

    def ask() -> None:
        try:
            response = urlopen(Request(url, headers={"User-Agent": "ssl-backbones"}), timeout=PATIENCE)
        except Exception as error:
            outcome.append(error)
            return
        outcome.append(response)
        if given_up.is_set():
            response.close()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    given_up.set()
    if not outcome:
        raise TimeoutError
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _copy(response: HTTPResponse, file: BinaryIO) -> int:
    """Write what comes, and return its length."""
    began, received = time.monotonic(), 0
    while piece := response.read1(PIECE):
        file.write(piece)
        received += len(piece)
        spent = time.monotonic() - began
        if spent > PATIENCE and received < SLOWEST * spent:
            raise TimeoutError
    return received


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"the server answered {error.code} ({error.reason})"
    if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
        return f"the server did not answer, or stalled, for {PATIENCE:.0f} seconds"
    if isinstance(error, HTTPException):
        return f"the transfer was cut ({type(error).__name__})"
    return f"the address could not be reached ({getattr(error, 'reason', None) or error})"
