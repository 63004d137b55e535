"""The state of a Hub on this machine: repositories, commits, tags, tokens, and the failures it is to show."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

WRITER, READER, STRANGER = (f"hf_{who}AndNobodyElse{'0' * 12}" for who in ("Writer", "Reader", "Stranger"))
RIGHTS = {WRITER: {"read", "write"}, READER: {"read"}}
"""The rights of tokens; any other is unknown."""


@dataclass
class Repository:
    """Its settings, and what is in each commit, the newest last."""

    private: bool = False
    gated: Any = False
    commits: dict[str, dict[str, bytes | str]] = field(default_factory=dict)
    """Commit to path to content; of a file in Xet's storage, which this server never sees, its sha256."""
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    @property
    def files(self) -> dict[str, bytes | str]:
        return self.commits[self.head]

    def commit(self, files: dict[str, bytes | str]) -> str:
        """Add files on top of what is there."""
        oid = hashlib.sha1(f"{len(self.commits)} {sorted(files)} {time.time_ns()}".encode()).hexdigest()
        self.commits[oid] = {**(self.files if self.commits else {}), **files}
        return oid


@dataclass
class State:
    """All that the Hub knows, and how it is to fail."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    """LFS objects by sha256."""
    faults: dict[str, int | str] = field(default_factory=dict)
    """By step, a status to answer with, or "cut"; "half" of a file."""
    damaged: set[str] = field(default_factory=set)
    """Names of files of which a bit is wrong when they are downloaded."""
    xet: str = ""
    """The folder of Xet's storage; empty for a Hub without."""
    xet_hashes: dict[str, str] = field(default_factory=dict)
    """Xet's name for a content, by sha256; the real Hub is told by Xet's storage."""
    asked: Counter[str] = field(default_factory=Counter)
    waited: Counter[int] = field(default_factory=Counter)
    """Seconds that each thread of the client would have waited between its tries."""


def blob(content: bytes) -> str:
    """The hash that git knows a content by."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(path: str) -> bool:
    return path.endswith(".safetensors")
