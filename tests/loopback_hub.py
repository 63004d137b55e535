"""A Hub on this machine that answers as the real one does on its bad days: the repository's name says how."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

COMMIT = "0" * 40
STATUS = {"unauthorised": 401, "gated": 403, "missing": 404, "limited": 429, "broken": 500}
CODES = {"unauthorised": "RepoNotFound", "gated": "GatedRepo", "missing": "RepoNotFound"}


class Answers(BaseHTTPRequestHandler):
    """One request; a file's content is the class's, whatever its name."""

    asked: ClassVar[Counter[str]] = Counter()
    """The number of requests, by model."""
    authorised: ClassVar[Counter[str]] = Counter()
    files: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        """The content behind the repository's name, or the file's."""
        manner = next((word for word in ("cut", "stalled", *STATUS) if f"/{word}" in self.path), "kind")
        self.asked[manner] += "datasets" not in self.path
        self.authorised[manner] += "authorization" in {name.lower() for name in self.headers}
        if manner == "stalled":
            time.sleep(0.3)
            return
        if manner in STATUS:
            self.send_response(STATUS[manner])
            if manner in CODES:
                self.send_header("X-Error-Code", CODES[manner])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.serve(self.files.get(self.path.rsplit("/", 1)[1].partition("?")[0], b""), body, manner == "cut")

    def serve(self, content: bytes, body: bool, cut: bool) -> None:
        """A file with the headers that the Hub's client wants, or the first half of it."""
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = cut

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def loopback_hub(files: dict[str, bytes]) -> Iterator[tuple[str, type[Answers]]]:
    """The address of such a Hub that holds the files, and what it was asked."""
    kind = type("Here", (Answers,), {"asked": Counter(), "authorised": Counter(), "files": files})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", kind
    finally:
        server.shutdown()
        server.server_close()
