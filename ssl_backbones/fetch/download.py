"""One file over HTTP: never waited for long, never larger than allowed, and never from another scheme."""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO, BinaryIO, final
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ssl_backbones.credentials import without_credentials
from ssl_backbones.files import DISK_ERRORS

PATIENCE = 15.0
"""Seconds for an answer, names and all addresses included, and without any byte after that."""
SLOWEST = 1024
"""Bytes a second on average, below which a transfer is given up after that time."""
LARGEST = 4 * 10**9
"""Bytes of a file, at most: a ResNet of 300 million weights with its momentum and its optimiser's state."""
PIECE = 1 << 20


class DownloadError(RuntimeError):
    """The reason why a file could not be fetched, in a few words."""


@final
class SameScheme(HTTPRedirectHandler):
    """Follows a server to other places, but never from https to http, to a file or the like."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).scheme != req.type:
            fp.close()
            raise DownloadError(
                f"the server leads on from {req.type} to {without_credentials(newurl)}, and no other scheme is followed"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, file: BinaryIO, most: int = LARGEST) -> None:
    """Fetch what lies at an address into an open file; DownloadError if it does not come whole or is too large.

    At most `most` bytes are fetched. User and password in the address are sent to its own host alone.
    """
    try:
        response = _opened(url)
        with response:
            declared = response.headers.get("Content-Length")
            if declared is not None and int(declared) > most:
                raise DownloadError(f"it has {int(declared):,} bytes, and {most:,} are allowed")
            received = _copy(response, file, most)
        if declared is not None and received != int(declared):
            raise DownloadError(f"the transfer was cut after {received} of {declared} bytes")
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise  # what the file is to be called is told by whoever opened it
        if isinstance(error, HTTPError):
            error.close()  # it is the answer as well, with its connection
        raise DownloadError(without_credentials(_reason(error))) from error


def _request(url: str) -> Request:
    """The request for an address, with its user and password apart."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    request = Request(urlunsplit(parts._replace(netloc=host)), headers={"User-Agent": "ssl-backbones"})
    if user:
        words = b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {words}")
    return request


def _opened(url: str) -> HTTPResponse:
    """The answer to a request, or TimeoutError: a name with many addresses would else be tried for minutes."""
    if not url.startswith(("http://", "https://")):
        raise DownloadError("the address is not one of http or https")
    outcome: list[HTTPResponse | Exception] = []
    given_up = threading.Event()

    def ask() -> None:
        try:
            response = build_opener(SameScheme).open(_request(url), timeout=PATIENCE)
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


def _copy(response: HTTPResponse, file: BinaryIO, most: int) -> int:
    """Write what comes, and return its length; DownloadError as soon as it is more than `most`."""
    began, received = time.monotonic(), 0
    while piece := response.read1(PIECE):
        received += len(piece)
        if received > most:
            raise DownloadError(f"it has more than the {most:,} bytes that are allowed")
        file.write(piece)
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
