"""A Hub on this machine that can be written to: repositories, commits, tags, LFS, tokens; and it fails when told to.

Answers as huggingface_hub 2.4 asks. In place of Xet's own storage there is a folder, which hf_xet writes to by itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from hub_state import RIGHTS, Repository, State, blob, is_large


class Refused(Exception):
    """An answer that ends a request."""


class Handler(BaseHTTPRequestHandler):
    """One request; the state is the class's."""

    state: ClassVar[State]

    def do_GET(self) -> None:
        self.handle_one()

    do_HEAD = do_POST = do_PUT = do_GET

    def handle_one(self) -> None:
        """Find who asks for what, and answer."""
        path = unquote(urlsplit(self.path).path).strip("/")
        self.body = self.read_body()
        try:
            parts = path.split("/")
            if path.startswith("api/models/"):
                self.about_repository("/".join(parts[2:4]), parts[4:])
            elif path.startswith("api/"):
                self.about_account(path)
            elif path.endswith("info/lfs/objects/batch"):
                self.step("batch", "write")
                self.batch()
            elif path.startswith("lfs/"):
                self.stored(parts[1], parts[2])
            else:
                self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        except Refused:
            return

    def read_body(self) -> bytes:
        """All that was sent, in chunks or not."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def may(self, right: str) -> bool:
        return right in RIGHTS.get(self.token, set())

    def step(self, name: str, right: str = "") -> None:
        """Count a step, fail if that is wanted, and refuse whoever has not the right."""
        self.state.asked[name] += 1
        fault = self.state.faults.get(name)
        if fault == "cut":
            self.close_connection = True
            self.connection.close()
            raise Refused
        if isinstance(fault, int):
            self.refuse(fault)
        if right and not self.may(right):
            self.refuse(403 if self.token in RIGHTS else 401)

    def refuse(self, status: int, code: str = "") -> None:
        self.send(b"", status, **({"X-Error-Code": code} if code else {}))
        raise Refused

    def send(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def say(self, value: Any, status: int = 200, **headers: str) -> None:
        self.send(json.dumps(value).encode(), status, **headers)

    @property
    def address(self) -> str:
        return f"http://{self.headers['Host']}"

    def about_account(self, path: str) -> None:
        """Answer requests for the user, a new repository, or the check of a card's front matter."""
        if path == "api/whoami-v2":
            self.step("whoami", "read")
            self.say({"type": "user", "name": "someone", "orgs": [{"name": "org"}]})
        elif path == "api/repos/create":
            self.step("create", "write")
            asked = json.loads(self.body)
            name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
            if name in self.state.repositories:
                self.say({"url": f"{self.address}/{name}"}, 409)
                return
            made = self.state.repositories[name] = Repository(
                asked.get("private") or asked.get("visibility") == "private"
            )
            made.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
            self.say({"url": f"{self.address}/{name}"})
        else:
            self.step("yaml", "read")
            self.say({"errors": [], "warnings": []})

    def repository(self, name: str) -> Repository:
        """The repository, for those who may know of it."""
        found = self.state.repositories.get(name)
        if found is None or (found.private and not self.may("read")):
            self.refuse(404 if self.token in RIGHTS else 401, "RepoNotFound")
        assert found
        return found

    def about_repository(self, name: str, rest: list[str]) -> None:
        """Its content, and the operations on it."""
        what = rest[0] if rest else "info"
        write = what in {"settings", "preupload", "xet-write-token", "commit", "tag"}
        self.step(what, "write" if write else "")
        repository = self.repository(name)
        if what == "settings":
            repository.gated = json.loads(self.body)["gated"]
            self.say({})
        elif what == "refs":
            tags = [{"name": t, "ref": f"refs/tags/{t}", "targetCommit": c} for t, c in repository.tags.items()]
            self.say({"branches": [], "converts": [], "tags": tags})
        elif what in {"info", "revision"}:
            self.info(name, repository, self.commit_of(repository, rest[1] if rest[1:] else "main"))
        elif what == "tree":
            files = repository.commits[self.commit_of(repository, rest[1])]
            self.say([{"type": "file", "path": path, **self.entry(content)} for path, content in files.items()])
        elif what == "preupload":
            asked = json.loads(self.body)["files"]
            self.say({"files": [{**self.mode(repository, file["path"])} for file in asked]})
        elif what.startswith("xet-"):
            self.give_xet()
        elif what == "commit":
            self.commit(name, repository)
        elif what == "tag":
            asked = json.loads(self.body)["tag"]
            if asked in repository.tags:
                self.refuse(409)
            repository.tags[asked] = self.commit_of(repository, rest[1])
            self.say({})

    def commit_of(self, repository: Repository, revision: str) -> str:
        """The commit that a branch, a tag or a hash names."""
        commit = repository.head if revision == "main" else repository.tags.get(revision, revision)
        if commit not in repository.commits:
            self.refuse(404, "RevisionNotFound")
        return commit

    def info(self, name: str, repository: Repository, commit: str) -> None:
        files = repository.commits[commit].items()
        siblings = [
            {"rfilename": path, "blobId": (entry := self.entry(content))["oid"], **entry} for path, content in files
        ]
        self.say(
            {"id": name, "sha": commit, "private": repository.private, "gated": repository.gated, "siblings": siblings}
        )

    def entry(self, content: bytes | str) -> dict[str, Any]:
        """The facts of a file: its size and hashes."""
        if isinstance(content, str):
            size = int(content.partition(":")[2])
            sha256 = content.partition(":")[0]
            large = {"oid": sha256, "sha256": sha256, "size": size, "pointerSize": 130}
            return {"oid": sha256[:40], "size": size, "lfs": large, "xetHash": self.state.xet_hashes[sha256]}
        entry: dict[str, Any] = {"oid": blob(content), "size": len(content)}
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 in self.state.stored:
            entry["lfs"] = {"oid": sha256, "sha256": sha256, "size": len(content), "pointerSize": 130}
        return entry

    def mode(self, repository: Repository, path: str) -> dict[str, Any]:
        """The upload mode of a file, and the content under its name."""
        there = repository.files.get(path)
        entry = self.entry(there) if there is not None else {}
        oid = entry["lfs"]["sha256"] if "lfs" in entry else entry.get("oid")
        return {"path": path, "uploadMode": "lfs" if is_large(path) else "regular", "shouldIgnore": False, "oid": oid}

    def batch(self) -> None:
        """The address for LFS objects."""
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            places = {"upload": {"href": f"{self.address}/lfs/put/{wanted['oid']}"}}
            places["verify"] = {"href": f"{self.address}/lfs/verify/{wanted['oid']}"}
            objects.append({**wanted, **({} if wanted["oid"] in self.state.stored else {"actions": places})})
        self.say({"objects": objects})

    def stored(self, what: str, oid: str) -> None:
        """Take an object, or confirm it."""
        self.step(what)
        if what == "put":
            if hashlib.sha256(self.body).hexdigest() != oid:
                self.refuse(400)
            self.state.stored[oid] = self.body
        elif oid not in self.state.stored:
            self.refuse(404)
        self.send(b"")

    def give_xet(self) -> None:
        """Access to Xet's storage."""
        if not self.state.xet:
            self.refuse(404)
        address, until = f"local://{self.state.xet}", int(time.time()) + 3600
        headers = {"X-Xet-Cas-Url": address, "X-Xet-Access-Token": "pass", "X-Xet-Token-Expiration": str(until)}
        self.say({"casUrl": address, "accessToken": "pass", "exp": until}, **headers)

    def commit(self, name: str, repository: Repository) -> None:
        """Take all files of a commit, or none."""
        lines = [json.loads(line) for line in self.body.splitlines() if line]
        parent = lines[0]["value"].get("parentCommit")
        if parent and parent != repository.head:
            self.refuse(412)
        files: dict[str, bytes | str] = {}
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif self.state.xet:
                files[value["path"]] = f"{value['oid']}:{value['size']}"
            else:
                files[value["path"]] = self.state.stored[value["oid"]]
        oid = repository.commit(files)
        self.say({"commitOid": oid, "commitUrl": f"{self.address}/{name}/commit/{oid}", "success": True})

    def resolve(self, name: str, revision: str, path: str) -> None:
        """A file, or its headers, for those who may read it."""
        self.step("resolve")
        repository = self.repository(name)
        if repository.gated and not self.may("read"):
            self.refuse(403 if self.token else 401, "GatedRepo")
        commit = self.commit_of(repository, revision)
        if path not in repository.commits[commit]:
            self.refuse(404, "EntryNotFound")
        content = repository.commits[commit][path]
        headers = {"X-Repo-Commit": commit}
        if isinstance(content, str):
            sha256, size = content.split(":")
            route = f"{self.address}/api/models/{name}/xet-read-token/{commit}"
            headers |= {"X-Xet-Hash": self.state.xet_hashes[sha256], "X-Xet-Refresh-Route": route}
            self.send(
                b"", 200, **headers, **{"ETag": f'"{sha256}"', "X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": size}
            )
            return
        etag = hashlib.sha256(content).hexdigest() if is_large(path) else blob(content)
        if path in self.state.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        headers |= {"ETag": f'"{etag}"', "X-Linked-Etag": f'"{etag}"', "Content-Length": str(len(content))}
        self.send(content[: len(content) // 2] if self.state.faults.get("resolve") == "half" else content, **headers)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def writable_hub() -> Iterator[tuple[str, State]]:
    """The address of an empty Hub, and its state."""
    kind = type("Here", (Handler,), {"state": State()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", kind.state  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
