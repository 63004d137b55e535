"""A server on this machine that answers as a test says: whole, cut, stalled, or with an error."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """Answers by path; what was asked for is kept in `asked`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.answers.get(self.path, status(404))(self)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[Server]:
    """A server for as long as the block lasts."""
    server = Server()
    with running(server, server.closing):
        yield server


@contextmanager
def running(server: ThreadingHTTPServer, closing: threading.Event) -> Iterator[None]:
    """Answers of a server for as long as the block lasts; `closing` tells those that wait of its end."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def whole(content: bytes, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(content)

    return answer


def status(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return answer


def understated(content: bytes, declared: int) -> Answer:
    """Send all of it, under a length that is too small."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(declared))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def endless(content: bytes) -> Answer:
    """Send it again and again, without a word on its length, until nobody listens."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with suppress(OSError):
            while True:
                handler.wfile.write(content)

    return answer


def cut(content: bytes, sent: int) -> Answer:
    """Promise all of it, send a part, hang up."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:sent])

    return answer


def stalled(content: bytes = b"", sent: int = 0) -> Answer:
    """Send a part, or not even a status, and then nothing for as long as the server runs."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if content:
            cut(content, sent)(handler)
            handler.wfile.flush()
        handler.server.closing.wait()  # type: ignore[attr-defined]

    return answer


def trickling(content: bytes) -> Answer:
    """Send a byte ten times a second."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        cut(content, 0)(handler)
        while not handler.server.closing.wait(0.1):  # type: ignore[attr-defined]
            handler.wfile.write(b"x")
            handler.wfile.flush()

    return answer


def hub_file(content: bytes) -> Answer:
    """A file as the Hub serves it."""
    return whole(content, X_Repo_Commit="0" * 40, ETag=f'"{hashlib.sha1(content).hexdigest()}"')
