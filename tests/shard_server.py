"""A web server on this machine that gives the files of a folder, by range or whole, as badly as a test wants."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from loopback import running


class ShardServer(ThreadingHTTPServer):
    """The files of a folder, and what was asked of them."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.ranges = self.listings = self.tells_versions = True
        self.latency = 0.0
        """Seconds before each answer."""
        self.cut_every = 0
        """One of so many answers with a body is cut in its middle."""
        self.stalled = self.denied = ""
        """A part of the paths that are never answered, and of those that nobody may read."""
        self.asked: list[tuple[str, int]] = []
        """Paths, and the bytes that were sent."""
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def sent(self) -> int:
        """Bytes sent so far."""
        return sum(count for _, count in self.asked)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ShardServer

    def do_GET(self) -> None:
        server, path = self.server, self.path.partition("?")[0]
        time.sleep(server.latency)
        if server.stalled and server.stalled in path:
            server.closing.wait()
            self.close_connection = True
            return
        file = server.folder / path.strip("/")
        if server.denied and server.denied in path:
            self.answer(403, b"")
        elif file.is_dir() and server.listings:
            links = "".join(f'<a href="{name.name}">{name.name}</a>' for name in sorted(file.iterdir()))
            self.answer(200, links.encode(), {"Content-Type": "text/html"})
        elif file.is_file():
            self.give(file)
        else:
            self.answer(404, b"")

    def give(self, file: Path) -> None:
        """A file, or the range of it that is asked for."""
        state, headers = file.stat(), {}
        if self.server.tells_versions:
            headers["ETag"] = f'"{state.st_ino:x}-{state.st_mtime_ns:x}"'
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None or not self.server.ranges:
            self.answer(200, file.read_bytes(), headers)
            return
        first, last = int(wanted[1]), min(int(wanted[2]), state.st_size - 1)
        if first > last:
            self.answer(416, b"", {"Content-Range": f"bytes */{state.st_size}"})
            return
        headers["Content-Range"] = f"bytes {first}-{last}/{state.st_size}"
        with open(file, "rb") as content:
            content.seek(first)
            self.answer(206, content.read(last + 1 - first), headers)

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        """An answer, whole or cut."""
        server = self.server
        server.asked.append((self.path, len(content)))
        cut = bool(content) and server.cut_every > 0 and len(server.asked) % server.cut_every == 0
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Quiet(ShardServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up."""


@contextmanager
def serving_shards(folder: Path) -> Iterator[ShardServer]:
    """A server for as long as the block lasts."""
    server = Quiet(folder)
    with running(server, server.closing):
        yield server
